//! The signed statement of an action: made, and checked before a record is used.
//! Knows nothing of where statements are kept.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::SystemTime;

use chrono::{DateTime, SubsecRound, Utc};

use super::SharePolicy;
use crate::Error;
use crate::attestation::{self, Claim};
use crate::error::require;
use crate::machine;
use crate::sign::{Envelope, NotBelieved, PublicKey, Signer, hash_file};
use crate::store::Action;
use artifact::{AtPath, Digest, FileEntry, in_one_line};
use text::shown;

/// Why a record is not used.
#[derive(Debug, thiserror::Error)]
pub enum NotUsed {
    /// No trusted key signed it.
    #[error(transparent)]
    NotBelieved(#[from] NotBelieved),
    /// What is signed is not a statement about an action.
    #[error("{0}")]
    NotAClaim(String),
    /// It is the record of another action.
    #[error("it is the record of {}", .0.short())]
    Other(Digest),
    /// It was measured on another class of machines.
    #[error("it was measured on `{}`, and this machine is `{}`", shown(.0), machine::class())]
    Machine(String),
    /// It disagrees with `pipeline.lock`.
    #[error("it says {}, but the lock has {}{age}", made.short(), locked.short())]
    Unlocked {
        /// The reproducible digest of the artifact in the record.
        made: Digest,
        /// The digest in `pipeline.lock`.
        locked: Digest,
        /// When both were written.
        age: Age,
    },
    /// It is not one of this stage.
    #[error("{0}")]
    Refused(String),
}

/// When a record was signed, and when `pipeline.lock` was written.
#[derive(Clone, Copy, Debug)]
pub struct Age {
    signed: Option<DateTime<Utc>>,
    lock: Option<SystemTime>,
}

impl Age {
    pub(super) fn new(signed: Option<DateTime<Utc>>, lock: Option<SystemTime>) -> Self {
        Self { signed, lock }
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(signed) = self.signed else { return Ok(()) };
        let is_older = self.lock.is_some_and(|lock| signed < DateTime::<Utc>::from(lock));
        let older = if is_older { "; the record is older than the lock:" } else { "; the record" };
        write!(f, "{older} it was signed at {}", signed.format("%Y-%m-%dT%H:%M:%SZ"))
    }
}

/// Opens the signed statement of an action; returns it and the key that signed it.
///
/// # Errors
///
/// Fails if `json` is not an envelope, no key in `believed` signed it, or it does not hold the statement of
/// an action.
pub fn open(json: &[u8], believed: &[PublicKey]) -> Result<(Claim, PublicKey), NotUsed> {
    let (payload, signer) = Envelope::parse(json)?.open(attestation::PAYLOAD_TYPE, believed)?;
    let claim = Claim::parse(&payload).map_err(|error| {
        // The causes are included: a problem with its files is one level below.
        NotUsed::NotAClaim(in_one_line(&error))
    })?;
    Ok((claim, signer))
}

/// Returns the class of machine that a signed statement names, if it is not that of this machine. The signature is not
/// checked.
pub fn stated_machine(json: &[u8]) -> Option<String> {
    let claim = Claim::parse(&Envelope::parse(json).ok()?.payload).ok()?;
    claim.machine.filter(|machine| machine != machine::class())
}

/// Opens the signed statement of the action of `key`; returns it and the key that signed it. A measurement must
/// be one of this class of machines.
///
/// # Errors
///
/// Fails as [`open`] does, or if it is about another action or another class of machines.
pub fn vouched(
    json: &[u8],
    believed: &[PublicKey],
    key: &Digest,
    policy: &SharePolicy,
) -> Result<(Claim, PublicKey), NotUsed> {
    let (claim, signer) = open(json, believed)?;
    if claim.key != *key {
        return Err(NotUsed::Other(claim.key));
    }
    match (policy, &claim.machine) {
        (SharePolicy::Measured, Some(machine)) if machine == machine::class() => {}
        // A worker measures on the machine that it has.
        (SharePolicy::MeasuredOn(_), Some(_)) => {}
        (SharePolicy::Measured | SharePolicy::MeasuredOn(_), machine) => {
            return Err(NotUsed::Machine(machine.clone().unwrap_or_default()));
        }
        (SharePolicy::Made | SharePolicy::Source, _) => {}
    }
    Ok((claim, signer))
}

/// Returns the statement that the action of `key` made its artifact, signed with `own` now, as the JSON of an
/// envelope. A measurement also states the machine's class. `path` says where a file lies: each is read, so
/// that only what is really there is signed.
///
/// # Errors
///
/// Fails if a file cannot be read or has other content, or if the signer has ended.
pub fn seal(
    key: &Digest,
    kind: &SharePolicy,
    action: &Action,
    own: &Signer,
    path: &dyn Fn(&FileEntry) -> PathBuf,
) -> Result<Vec<u8>, Error> {
    let machine = (*kind == SharePolicy::Measured).then(|| machine::class().to_owned());
    let mut sha256 = BTreeMap::new();
    for file in action.artifact.files() {
        let path = path(file);
        let (blake3, sha) = hash_file(&path).at("read", &path)?;
        require!(blake3 == file.digest, Store, "{} was altered, so it is not signed", path.display());
        sha256.insert(file.path.clone(), sha);
    }
    let signed = DateTime::<Utc>::from(SystemTime::now()).trunc_subsecs(0);
    let claim = Claim { key: *key, action: action.clone(), machine, signed: Some(signed), sha256 };
    Ok(own.seal(attestation::PAYLOAD_TYPE, claim.to_json())?.to_json())
}

#[cfg(test)]
mod tests {
    use artifact::Artifact;

    use super::*;
    use crate::sign::SecretKey;

    #[test]
    fn a_measurement_belongs_to_its_class_of_machines() {
        let key = Digest::of(b"key");
        let secret = SecretKey::generate().unwrap();
        let judge = |machine: Option<&str>, policy| {
            let action = Action {
                artifact: Artifact::new(Vec::new()),
                failure: None,
                recipe: serde_json::json!({}),
                seconds: 1.0,
                tool: None,
            };
            let machine = machine.map(str::to_owned);
            let claim = Claim { key, action, machine, signed: None, sha256: BTreeMap::new() };
            let sealed = Envelope::seal(attestation::PAYLOAD_TYPE, claim.to_json(), &secret).to_json();
            vouched(&sealed, &[secret.public()], &key, &policy).map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(judge(Some(machine::class()), SharePolicy::Measured), Ok(()));
        assert_eq!(judge(None, SharePolicy::Made), Ok(()));
        // A record that was copied to the name of another class.
        let other = judge(Some("a fast machine"), SharePolicy::Measured).unwrap_err();
        assert!(other.starts_with("it was measured on `a fast machine`, and this machine is `"), "{other}");
        assert!(judge(None, SharePolicy::Measured).is_err());
    }
}
