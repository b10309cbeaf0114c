//! Other people's tools check our statements: in-toto's own packages from PyPI read the envelope, the signature,
//! the statement and the files.

use std::path::Path;

use crate::bucket::Bucket;
use crate::remote::Team;

const CHECK: &str = r#"
import base64, json, sys
from pathlib import Path
from google.protobuf.json_format import ParseDict
from in_toto.runlib import record_artifacts_as_dict
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

public, node = sys.argv[1:]
key = SSlibKey(public, "ed25519", "ed25519", {"public": base64.b64decode(public.removeprefix("ed25519:")).hex()})
artifact = Path("artifacts", node).resolve()
hashed = record_artifacts_as_dict(["."], base_path=str(artifact))
for path in Path("cache/attestations").iterdir():
    envelope = Envelope.from_dict(json.loads(path.read_text()))
    envelope.verify([key], 1)
    body = json.loads(envelope.payload)
    pb = statement_pb2.Statement()
    ParseDict(body, pb, ignore_unknown_fields=True)
    Statement.copy_from_pb(pb).validate()
    stated = {file["name"]: {"sha256": file["digest"]["sha256"]} for file in body["subject"]}
    if stated == hashed:
        assert body["predicate"]["runDetails"]["metadata"]["finishedOn"].endswith("Z")
        print("sound", len(stated))
"#;

#[test]
fn the_tools_of_in_toto_check_the_signature_and_the_files() {
    let (team, space) = Team::with_first(Bucket::folder());
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".mlx-lm/bin/python");
    for node in ["fused", "q8", "q4"] {
        let mut command = space.command_of(python.to_str().unwrap());
        let public = team.keys[0].public().to_string();
        let run = space.finish(command.args(["-c", CHECK, &public, node]).output().unwrap()).exits(0);
        assert!(run.stdout.starts_with("sound "), "{node}: {}", run.transcript());
    }
    // A file that was changed afterwards is not what was signed.
    space.scribble(&format!("artifacts/{}/config.json", space.link("artifacts/q4")));
    let mut command = space.command_of(python.to_str().unwrap());
    let public = team.keys[0].public().to_string();
    let run = space.finish(command.args(["-c", CHECK, &public, "q4"]).output().unwrap()).exits(0);
    assert_eq!(run.stdout, "", "{}", run.transcript());
}
