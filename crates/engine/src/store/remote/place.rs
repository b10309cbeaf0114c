//! From the address of a remote to a client for it: which provider, its credentials, its patience.
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
    /// Bytes come at least every 10 s.
    Reading,
    /// The client counts the time until the first byte of the answer, and in it the whole time of sending. So it has no
    /// limit there, and who sends sets one by the length of what is sent.
    Writing,
}

impl Purpose {
    /// What the clients do unless the environment says otherwise, in the words of `object_store`: a connection is made
    /// within 5 s, and how long a whole transfer takes is not limited, because links differ a thousandfold.
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

/// A folder, made if it is missing: a mounted share that is not mounted shows as a parent that is missing.
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

/// The options that a provider's client knows.
fn known<K: FromStr>(options: Vec<(String, String)>) -> impl Iterator<Item = (K, String)> {
    options.into_iter().filter_map(|(name, value)| Some((name.parse().ok()?, value)))
}

/// A chunk has the name of its content and is hashed by whoever fetches it, so that the signature of a request need not
/// cover it too: that costs more processor time than all else that sending takes.
const UNSIGNED_PAYLOAD: (&str, &str) = ("unsigned_payload", "true");

/// Our defaults, then what is `configured`, then what the environment says under a provider's `prefix`, in lower case as
/// `object_store` wants it.
fn options(prefix: &str, configured: Vec<(String, String)>, purpose: Purpose) -> Vec<(String, String)> {
    let mut options: Vec<_> =
        purpose.patience().map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    if prefix == "AWS_" {
        options.push((UNSIGNED_PAYLOAD.0.to_owned(), UNSIGNED_PAYLOAD.1.to_owned()));
    }
    options.extend(configured);
    let own = std::env::vars().filter(|(name, _)| name.starts_with(prefix));
    options.extend(own.map(|(name, value)| (name.to_ascii_lowercase(), value)));
    // Somebody who writes http:// in an endpoint means it.
    let is_endpoint =
        |name: &str| matches!(name, "aws_endpoint" | "aws_endpoint_url" | "aws_endpoint_url_s3");
    if options.iter().any(|(name, value)| is_endpoint(name) && value.starts_with("http://")) {
        options.push(("allow_http".to_owned(), "true".to_owned()));
    }
    options
}

/// A server that is down is given up after some seconds; one that is busy gets a few more chances, one that falls silent
/// one more.
fn retries() -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(200),
        max_backoff: Duration::from_secs(3),
        base: 2.0,
    };
    RetryConfig { backoff, max_retries: 4, retry_timeout: Duration::from_secs(15) }
}

/// The TLS of the clients takes its cryptography from `ring`, which is here anyway, not from a second library.
fn install_cryptography() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error would say that there is one already, which is as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}
