//! Opens a client for the address of a remote: the provider, its credentials, its timeouts.
//! Knows nothing of what is stored there.

use std::str::FromStr;
use std::sync::Once;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Name;
use object_store::{BackoffConfig, ObjectStore, RetryConfig};

use super::profile;

/// What a client is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// For reading. A request times out if no bytes come for 10 s.
    Reading,
    /// For writing. The client counts the upload itself as waiting for the first byte of the answer, so its
    /// limit is 1 h here. The caller sets a limit that depends on the length of the upload.
    Writing,
}

impl Purpose {
    /// Returns the timeouts that hold unless the environment overrides them, as options of `object_store`. A
    /// connection must be made within 5 s. A whole transfer may take 1 h, because the speeds of links differ
    /// a thousandfold.
    fn patience(self) -> [(&'static str, &'static str); 3] {
        let silence = if self == Self::Reading { "10 seconds" } else { "1 hour" };
        [("connect_timeout", "5 seconds"), ("read_timeout", silence), ("timeout", "1 hour")]
    }
}

/// Opens the storage at `url`; returns it with the prefix that all names get.
pub(super) fn open(url: &str, purpose: Purpose) -> Result<(Box<dyn ObjectStore>, Name), String> {
    let (scheme, rest) = url.split_once("://").ok_or("it has no scheme such as s3:// or file://")?;
    if scheme == "file" {
        return open_folder(rest);
    }
    install_cryptography();
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(format!("it names no bucket: {scheme}://BUCKET/PREFIX"));
    }
    let prefix = Name::parse(prefix.trim_end_matches('/')).map_err(|error| error.to_string())?;
    let place = format!("{scheme}://{bucket}");
    Ok((client(scheme, &place, purpose).map_err(|error| super::innermost(&error))?, prefix))
}

/// Opens a folder, and creates it if it is missing. Its parent must exist: a missing parent means that a
/// share is not mounted.
fn open_folder(path: &str) -> Result<(Box<dyn ObjectStore>, Name), String> {
    if !path.starts_with('/') {
        return Err("file:// takes an absolute path: file:///mnt/team/pipeline".to_owned());
    }
    if let Err(error) = std::fs::create_dir(path)
        && error.kind() != std::io::ErrorKind::AlreadyExists
    {
        return Err(format!("the folder cannot be made: {error}; is the share mounted?"));
    }
    let folder = LocalFileSystem::new_with_prefix(path).map_err(|error| super::innermost(&error))?;
    Ok((Box::new(folder.with_fsync(true)), Name::default()))
}

fn client(scheme: &str, place: &str, purpose: Purpose) -> object_store::Result<Box<dyn ObjectStore>> {
    Ok(match scheme {
        "s3" => {
            let fresh = AmazonS3Builder::new().with_url(place).with_retry(retries());
            let options = known(options("AWS_", profile::options(), purpose));
            Box::new(options.fold(fresh, |builder, (key, value)| builder.with_config(key, value)).build()?)
        }
        "gs" => {
            let fresh = GoogleCloudStorageBuilder::new().with_url(place).with_retry(retries());
            let options = known(options("GOOGLE_", Vec::new(), purpose));
            Box::new(options.fold(fresh, |builder, (key, value)| builder.with_config(key, value)).build()?)
        }
        "az" | "azure" | "abfs" | "abfss" => {
            let fresh = MicrosoftAzureBuilder::new().with_url(place).with_retry(retries());
            let options = known(options("AZURE_", Vec::new(), purpose));
            Box::new(options.fold(fresh, |builder, (key, value)| builder.with_config(key, value)).build()?)
        }
        _ => {
            let known = "file://, s3://, gs://, az:// and abfss://";
            let source = format!("`{scheme}://` is none of {known}").into();
            return Err(object_store::Error::Generic { store: "address", source });
        }
    })
}

/// Keeps the options that a provider's client knows.
fn known<K: FromStr>(options: Vec<(String, String)>) -> impl Iterator<Item = (K, String)> {
    options.into_iter().filter_map(|(name, value)| Some((name.parse().ok()?, value)))
}

/// The body of an S3 request is not signed. A chunk is named after its content and hashed by whoever fetches
/// it, and signing the body costs more processor time than all the rest of an upload.
const UNSIGNED_PAYLOAD: (&str, &str) = ("unsigned_payload", "true");

/// Returns our defaults, then the `configured` options, then the environment variables that begin with
/// `prefix`, in lower case as `object_store` expects. Later options replace earlier ones.
fn options(prefix: &str, configured: Vec<(String, String)>, purpose: Purpose) -> Vec<(String, String)> {
    let mut options: Vec<_> =
        purpose.patience().map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    if prefix == "AWS_" {
        options.push((UNSIGNED_PAYLOAD.0.to_owned(), UNSIGNED_PAYLOAD.1.to_owned()));
    }
    options.extend(configured);
    let own = std::env::vars().filter(|(name, _)| name.starts_with(prefix));
    options.extend(own.map(|(name, value)| (name.to_ascii_lowercase(), value)));
    // Plain HTTP is allowed if the user writes http:// in the endpoint.
    let is_endpoint =
        |name: &str| matches!(name, "aws_endpoint" | "aws_endpoint_url" | "aws_endpoint_url_s3");
    if options.iter().any(|(name, value)| is_endpoint(name) && value.starts_with("http://")) {
        options.push(("allow_http".to_owned(), "true".to_owned()));
    }
    options
}

/// A server that is down is given up after some seconds. A busy server gets a few more attempts, a silent one
/// gets one.
fn retries() -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(200),
        max_backoff: Duration::from_secs(3),
        base: 2.0,
    };
    RetryConfig { backoff, max_retries: 4, retry_timeout: Duration::from_secs(15) }
}

/// Makes the clients' TLS use the cryptography of `ring`, which is a dependency anyway, and not a second
/// library.
fn install_cryptography() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error means that a provider is installed already, which is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}
