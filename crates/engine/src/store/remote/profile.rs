//! Profiles of the AWS command line: keys, region and endpoint from `~/.aws/credentials` and `~/.aws/config`.
//! Knows nothing of the other providers, nor of profiles that get their keys from a program or a service.

use std::path::PathBuf;
use std::{env, fs};

/// The settings that are read, each with its name in `object_store`.
const SETTINGS: [(&str, &str); 5] = [
    ("aws_access_key_id", "aws_access_key_id"),
    ("aws_secret_access_key", "aws_secret_access_key"),
    ("aws_session_token", "aws_session_token"),
    ("region", "aws_region"),
    ("endpoint_url", "aws_endpoint_url"),
];

/// Returns the settings of the user's profile, or nothing if the environment has `AWS_ACCESS_KEY_ID`. The
/// profile and the files are chosen as by the AWS command line: `AWS_PROFILE`, `AWS_SHARED_CREDENTIALS_FILE`,
/// `AWS_CONFIG_FILE`.
pub(super) fn options() -> Vec<(String, String)> {
    if env::var_os("AWS_ACCESS_KEY_ID").is_some() {
        return Vec::new();
    }
    let profile = env::var("AWS_PROFILE").unwrap_or_else(|_| "default".to_owned());
    let file = |variable: &str, name: &str| {
        let own = env::var_os(variable).map(PathBuf::from);
        own.or_else(|| env::home_dir().map(|home| home.join(".aws").join(name)))
    };
    let read =
        |path: Option<PathBuf>| path.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
    let mut options = section(&read(file("AWS_CONFIG_FILE", "config")), &profile);
    options.extend(section(&read(file("AWS_SHARED_CREDENTIALS_FILE", "credentials")), &profile));
    // The environment takes precedence over the profile.
    let says = |name: &str| env::var_os(name).is_some();
    options.retain(|(name, _)| match name.as_str() {
        "aws_region" => !says("AWS_REGION") && !says("AWS_DEFAULT_REGION"),
        "aws_endpoint_url" => !says("AWS_ENDPOINT_URL") && !says("AWS_ENDPOINT"),
        other => !says(&other.to_ascii_uppercase()),
    });
    options
}

/// Returns the settings in [`SETTINGS`] from the section `[PROFILE]` or `[profile PROFILE]` in the text of a
/// file.
fn section(text: &str, profile: &str) -> Vec<(String, String)> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in text.lines().map(str::trim_end) {
        if let Some(heading) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            let heading = heading.trim();
            inside = heading.strip_prefix("profile ").map_or(heading, str::trim) == profile;
        } else if inside
            && let Some((name, value)) = line.split_once('=')
            && let Some((_, known)) = SETTINGS.iter().find(|(setting, _)| *setting == name.trim_end())
        {
            found.push(((*known).to_owned(), value.trim().to_owned()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_a_section() {
        let text = "[default]\nregion = eu-west-1\n\n[profile team]\n# ours\nregion=eu-north-1\nendpoint_url = https://s3.team\n\
                    s3 =\n  region = nested\n[other]\naws_access_key_id = X\n";
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            section(text, "team"),
            [pair("aws_region", "eu-north-1"), pair("aws_endpoint_url", "https://s3.team")]
        );
        assert_eq!(section(text, "default"), [pair("aws_region", "eu-west-1")]);
        assert_eq!(section(text, "none"), []);
    }
}
