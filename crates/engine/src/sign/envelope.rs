//! DSSE, the envelope of a signed text: <https://github.com/secure-systems-lab/dsse>.
//! Knows nothing of what the text says. [`Envelope::open`] returns the text only if a trusted key signed it.

use serde::{Deserialize, Serialize};

use super::base64_text;
use super::key::{PublicKey, SecretKey};
use text::shown;

/// The longest payload that is accepted, in bytes.
const PAYLOAD_BYTES: usize = 16 << 20;

/// The longest envelope that is read, in bytes: a payload in base64, and 64 KiB for the rest.
const ENVELOPE_BYTES: usize = PAYLOAD_BYTES / 3 * 4 + (64 << 10);

/// The most signatures that an envelope may have. Each may cost one Ed25519 verification per trusted key.
const SIGNATURES: usize = 16;

/// The most unknown keys that an error message names.
const NAMED: usize = 3;

/// A text, its type, and the signatures over both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The type of the text, as a media type.
    #[serde(rename = "payloadType")]
    pub payload_type: String,
    /// The text. It is not trusted until [`Envelope::open`] returns it.
    #[serde(with = "base64_text")]
    pub payload: Vec<u8>,
    /// The signatures. The standard allows leaving out empty fields.
    #[serde(default)]
    pub signatures: Vec<Signature>,
}

/// One signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// The key that is said to have made it. It is only a hint which key to try. We write the text of the
    /// public key here.
    #[serde(default)]
    pub keyid: String,
    /// The signature itself.
    #[serde(with = "base64_text")]
    pub sig: Vec<u8>,
}

/// Why an envelope is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum NotBelieved {
    /// It is not an envelope.
    #[error("it is not a DSSE envelope: {0}")]
    Malformed(String),
    /// It holds another type of text.
    #[error("it holds a `{}`, which is not what was asked for", shown(.0))]
    Kind(String),
    /// Nobody signed it.
    #[error("nobody signed it")]
    Unsigned,
    /// No trusted key signed it.
    #[error("it is signed by {}, who is not trusted", named(.0))]
    Unknown(Vec<String>),
    /// It names a trusted key as its signer, but the signature is wrong.
    #[error("it says that {} signed it, but the signature is not of this text: it was altered or forged", .0.short())]
    Forged(PublicKey),
}

impl Envelope {
    /// Signs `payload` and its type with `key`.
    pub fn seal(payload_type: &str, payload: Vec<u8>, key: &SecretKey) -> Self {
        let sig = key.sign(&pre_authentication_encoding(payload_type, &payload));
        let signatures = vec![Signature { keyid: key.public().to_string(), sig }];
        Self { payload_type: payload_type.to_owned(), payload, signatures }
    }

    /// Returns the envelope as JSON. The same envelope always gives the same bytes.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("BUG: an envelope has a JSON form")
    }

    /// Reads an envelope. Unknown fields are ignored, as the standard demands.
    ///
    /// # Errors
    ///
    /// Fails if the bytes are not the JSON of an envelope, or it is too long, or has too many signatures.
    pub fn parse(bytes: &[u8]) -> Result<Self, NotBelieved> {
        let malformed = |what: String| NotBelieved::Malformed(what);
        if bytes.len() > ENVELOPE_BYTES {
            return Err(malformed(format!("it has {} bytes, and {ENVELOPE_BYTES} are read", bytes.len())));
        }
        let envelope: Self =
            serde_json::from_slice(bytes).map_err(|error| malformed(shown(&error.to_string())))?;
        if envelope.payload.len() > PAYLOAD_BYTES {
            return Err(malformed(format!("its text is longer than {PAYLOAD_BYTES} bytes")));
        }
        if envelope.signatures.len() > SIGNATURES {
            return Err(malformed(format!("it has more than {SIGNATURES} signatures")));
        }
        Ok(envelope)
    }

    /// Returns the text and the key that signed it, if a key in `trusted` signed it as `payload_type`.
    ///
    /// # Errors
    ///
    /// Fails if the envelope has another type, or no valid signature by a key in `trusted`.
    pub fn open(
        &self,
        payload_type: &str,
        trusted: &[PublicKey],
    ) -> Result<(Vec<u8>, PublicKey), NotBelieved> {
        if self.payload_type != payload_type {
            return Err(NotBelieved::Kind(self.payload_type.clone()));
        }
        let message = pre_authentication_encoding(payload_type, &self.payload);
        let mut forged = None;
        for signature in &self.signatures {
            for key in trusted.iter().filter(|key| signature.may_be_of(key)) {
                if key.verifies(&message, &signature.sig) {
                    return Ok((self.payload.clone(), *key));
                }
                forged = forged.or_else(|| (!signature.keyid.is_empty()).then_some(*key));
            }
        }
        Err(match forged {
            Some(key) => NotBelieved::Forged(key),
            None if self.signatures.is_empty() => NotBelieved::Unsigned,
            None => NotBelieved::Unknown(self.signatures.iter().map(|one| one.keyid.clone()).collect()),
        })
    }
}

impl Signature {
    /// Whether `key` may have made this signature. A signature without a key id may be by any key.
    fn may_be_of(&self, key: &PublicKey) -> bool {
        self.keyid.is_empty() || self.keyid == key.to_string()
    }
}

/// Returns the bytes that are signed, as DSSE version 1 defines them. The type and the text are each preceded
/// by their length, so no other pair of type and text gives the same bytes.
fn pre_authentication_encoding(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

fn named(keyids: &[String]) -> String {
    let name = |id: &String| if id.is_empty() { "somebody unnamed".to_owned() } else { shown(id) };
    let mut out = keyids.iter().take(NAMED).map(name).collect::<Vec<_>>().join(", ");
    if keyids.len() > NAMED {
        out += &format!(" and {} more", keyids.len() - NAMED);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: &str = "http://example.com/HelloWorld";

    fn key(byte: char) -> SecretKey {
        let body = base64_text::encode(&[byte as u8; 32]);
        format!("ed25519-secret:{body}").parse().unwrap()
    }

    fn sealed() -> Envelope {
        Envelope::seal(KIND, b"hello world".to_vec(), &key('a'))
    }

    fn refused(envelope: &Envelope) -> NotBelieved {
        envelope.open(KIND, &[key('a').public(), key('b').public()]).unwrap_err()
    }

    #[test]
    fn signs_what_the_standard_says() {
        // https://github.com/secure-systems-lab/dsse/blob/master/protocol.md#test-vectors
        let signed = pre_authentication_encoding(KIND, b"hello world");
        assert_eq!(signed, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }

    #[test]
    fn is_believed_by_those_who_trust_the_signer() {
        let read = Envelope::parse(&sealed().to_json()).unwrap();
        assert_eq!(read, sealed());
        let (text, by) = read.open(KIND, &[key('b').public(), key('a').public()]).unwrap();
        assert_eq!((text.as_slice(), by), (&b"hello world"[..], key('a').public()));
    }

    #[test]
    fn has_the_published_names_and_reads_either_alphabet() {
        let json: serde_json::Value = serde_json::from_slice(&sealed().to_json()).unwrap();
        assert_eq!(json["payload"], "aGVsbG8gd29ybGQ=");
        assert_eq!(json["payloadType"], KIND);
        assert_eq!(json["signatures"][0]["keyid"], key('a').public().to_string());
        let text = String::from_utf8(Envelope::seal(KIND, vec![0xfb, 0xff], &key('a')).to_json()).unwrap();
        for other in ["-_8=", "-_8", "+/8"] {
            let read = Envelope::parse(text.replace("+/8=", other).as_bytes()).unwrap();
            assert!(read.open(KIND, &[key('a').public()]).is_ok(), "{other}");
        }
        let more = text.replacen('{', "{\"added\": [1], ", 1);
        assert!(Envelope::parse(more.as_bytes()).is_ok(), "a field of a later version is ignored");
    }

    #[test]
    fn a_signature_without_a_hint_is_tried_with_every_key() {
        let mut envelope = sealed();
        envelope.signatures[0].keyid.clear();
        assert!(envelope.open(KIND, &[key('b').public(), key('a').public()]).is_ok());
        envelope.payload.push(b'!');
        assert_eq!(refused(&envelope).to_string(), "it is signed by somebody unnamed, who is not trusted");
    }

    #[test]
    fn is_not_believed_when_anything_was_altered() {
        let mut envelope = sealed();
        envelope.payload[0] ^= 1;
        assert!(matches!(refused(&envelope), NotBelieved::Forged(by) if by == key('a').public()));
        let mut envelope = sealed();
        envelope.signatures[0].sig[63] ^= 1;
        assert!(matches!(refused(&envelope), NotBelieved::Forged(_)));
        let mut envelope = sealed();
        envelope.signatures[0].keyid = key('b').public().to_string();
        assert!(matches!(refused(&envelope), NotBelieved::Forged(by) if by == key('b').public()));
        let mut envelope = sealed();
        envelope.signatures.clear();
        assert!(matches!(refused(&envelope), NotBelieved::Unsigned));
        let kind = sealed().open("text/plain", &[key('a').public()]).unwrap_err();
        assert!(matches!(kind, NotBelieved::Kind(_)), "{kind}");
        // The type is signed too: it cannot be replaced by the requested one.
        let mut envelope = Envelope::seal("text/plain", b"hello world".to_vec(), &key('a'));
        envelope.payload_type = KIND.to_owned();
        assert!(matches!(refused(&envelope), NotBelieved::Forged(_)));
    }

    #[test]
    fn one_good_signature_among_bad_ones_is_enough() {
        let mut envelope = sealed();
        let wrong = Signature { keyid: key('b').public().to_string(), sig: vec![0; 64] };
        envelope.signatures.insert(0, wrong);
        assert!(envelope.open(KIND, &[key('a').public(), key('b').public()]).is_ok());
    }

    #[test]
    fn strangers_are_named_but_not_at_length() {
        let mut envelope = Envelope::seal(KIND, Vec::new(), &key('z'));
        let stranger = key('z').public();
        assert_eq!(refused(&envelope).to_string(), format!("it is signed by {stranger}, who is not trusted"));
        let ids = ["\u{1b}[31m".to_owned(), "x".repeat(1000), "c".to_owned(), "d".to_owned()];
        envelope.signatures = ids.map(|keyid| Signature { keyid, sig: Vec::new() }).to_vec();
        let long = "x".repeat(80);
        assert_eq!(
            refused(&envelope).to_string(),
            format!("it is signed by \\u{{1b}}[31m, {long}…, c and 1 more, who is not trusted")
        );
    }

    #[test]
    fn refuses_what_is_not_an_envelope() {
        let many = format!(
            r#"{{"payloadType":"t","payload":"","signatures":[{}]}}"#,
            vec![r#"{"sig":""}"#; 17].join(",")
        );
        let texts =
            ["", "null", "[]", "{}", r#"{"payloadType":"t","payload":"*"}"#, &many, &"[".repeat(9999)];
        for text in texts {
            let error = Envelope::parse(text.as_bytes()).unwrap_err();
            assert!(matches!(error, NotBelieved::Malformed(_)), "{error}");
        }
        let huge = vec![b' '; ENVELOPE_BYTES + 1];
        assert!(matches!(Envelope::parse(&huge), Err(NotBelieved::Malformed(_))));
    }
}
