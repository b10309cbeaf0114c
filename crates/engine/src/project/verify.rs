//! Verification: builds nodes again and compares them, hashes stored contents again, and checks signatures.
//! Knows nothing of how the results are shown.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use super::workers::Placing;
use super::{NEVER, Project};
use crate::error::Result;
use crate::event::{Event, Observer};
use crate::graph::NodeId;
use crate::plan::{Decision, Request, policy_here};
use crate::recipe::Recipe;
use crate::share;
use crate::sign::{PublicKey, Signer, signer};
use crate::stage::{BackendKind, DeviceChoice};
use crate::store::{Repair, owned_file};
use crate::verify::{Comparison, Verifier};
use artifact::{Digest, Interrupted};

/// What to verify.
#[derive(Clone, Debug)]
pub struct VerifyOptions<'a> {
    /// The names of the nodes. If empty, all nodes.
    pub targets: Vec<String>,
    /// The backend that computes weights.
    pub backend: BackendKind,
    /// What runs the models of benchmarks that do not say it themselves.
    pub device: DeviceChoice,
    /// Which workers nodes are placed on. A verification runs here; this decides only what is looked for.
    pub placing: Placing,
    /// Whether nodes with `deterministic: false` are made again too.
    pub rerun: bool,
    /// The caller sets this flag to stop the verification.
    pub cancel: &'a AtomicBool,
}

impl Default for VerifyOptions<'_> {
    fn default() -> Self {
        Self {
            targets: Vec::new(),
            backend: BackendKind::default(),
            device: DeviceChoice::Auto,
            placing: Placing::default(),
            rerun: false,
            cancel: &NEVER,
        }
    }
}

/// A stored content that is not what its name says.
#[derive(Clone, Debug)]
pub struct DamagedObject {
    /// Its digest, which is its name.
    pub object: Digest,
    /// What is wrong with it.
    pub problem: String,
}

/// The result of hashing the store.
#[derive(Clone, Debug)]
pub struct StoreVerification {
    /// How many contents are stored.
    pub objects: usize,
    /// Those that are damaged.
    pub damaged: Vec<DamagedObject>,
}

/// Who signed the record of a node.
#[derive(Clone, Debug)]
pub struct Attestation {
    /// The node.
    pub node: NodeId,
    /// The key that signed it, or what is wrong.
    pub signer: Result<PublicKey, String>,
}

impl Project {
    /// Builds nodes again and compares the outputs with the recorded artifacts. The local state is read but
    /// not written, so nothing of a verification is trusted later. The observer is told when each node begins
    /// and how it ended.
    ///
    /// # Errors
    /// Fails if a target does not exist, if a source cannot be read, if the cache cannot be written, or if it
    /// is asked to stop. A node that differs is not an error.
    pub fn verify(
        &mut self,
        options: &VerifyOptions<'_>,
        observer: &mut dyn Observer,
    ) -> Result<Vec<(NodeId, Comparison)>> {
        let ids = self.in_order(&options.targets)?;
        self.store.prepare()?;
        let verified = self.verify_nodes(&ids, options, observer);
        self.store.finish()?;
        verified
    }

    fn verify_nodes(
        &mut self,
        ids: &[NodeId],
        options: &VerifyOptions<'_>,
        observer: &mut dyn Observer,
    ) -> Result<Vec<(NodeId, Comparison)>> {
        self.place_nodes(options.placing, options.device);
        let cancel = options.cancel;
        let tick = |_, _| if cancel.load(Ordering::Relaxed) { Err(Interrupted) } else { Ok(()) };
        let names: Vec<_> = ids.iter().map(|id| self.graph.node(*id).name.clone()).collect();
        let worker = self.worker.clone();
        let planner = self.planner(options.backend, Request::default());
        let mut verifier = Verifier::new(planner, &worker, ids, options.rerun)?;
        let mut comparisons = Vec::with_capacity(ids.len());
        for (id, node) in ids.iter().zip(&names) {
            observer.event(&Event::Verifying { node });
            let comparison = verifier.verify(*id, &tick)?;
            if comparison == Comparison::Same {
                verifier.vouch(*id)?;
            }
            observer.event(&Event::Verified { node, comparison: &comparison });
            comparisons.push((*id, comparison));
        }
        Ok(comparisons)
    }

    /// Hashes every stored content again, without the stat cache, and compares the digest with its name.
    /// `found` is called with each damaged one. The next build puts them right.
    ///
    /// # Errors
    /// Fails if the cache cannot be listed, or if `found` fails.
    pub fn verify_store<E: From<crate::Error>>(
        &mut self,
        found: &mut dyn FnMut(&DamagedObject) -> Result<(), E>,
    ) -> Result<StoreVerification, E> {
        let objects = self.store.objects()?;
        let mut damaged = Vec::new();
        for object in &objects {
            let path = self.store.object_path(object);
            let problem = match owned_file::open(&path).and_then(Digest::of_open_file) {
                Ok((digest, _)) if digest == *object => continue,
                Ok((digest, _)) => format!("its content is now {digest}"),
                Err(error) => error.to_string(),
            };
            let damage = DamagedObject { object: *object, problem };
            found(&damage)?;
            damaged.push(damage);
        }
        self.state.set_damaged(damaged.iter().map(|damage| damage.object).collect());
        self.save_state();
        Ok(StoreVerification { objects: objects.len(), damaged })
    }

    /// Puts right what the last [`Self::verify_store`] found damaged: from a copy in `artifacts/`, or by
    /// removing it, so that a build makes it again. Returns what was done for each.
    ///
    /// # Errors
    /// Fails if the cache cannot be read or written.
    pub fn repair_store(&mut self) -> Result<Vec<(Digest, Repair)>> {
        let damaged = self.state.damaged().clone();
        if damaged.is_empty() {
            return Ok(Vec::new());
        }
        self.store.prepare()?;
        let repair = |object: Digest| Ok((object, self.store.repair(&object, &self.artifacts_dir)?));
        let done = damaged.into_iter().map(repair).collect::<Result<Vec<_>>>();
        self.store.finish()?;
        if done.is_ok() {
            self.state.set_damaged(BTreeSet::new());
            self.save_state();
        }
        done
    }

    /// Checks who signed the records of nodes. The trusted keys are those of the pipeline file and the user's
    /// own.
    ///
    /// # Errors
    /// Fails if a target does not exist or a source cannot be read. A node that nobody signed is not an
    /// error.
    pub fn verify_attestations(&mut self, options: &VerifyOptions<'_>) -> Result<Vec<Attestation>> {
        self.place_nodes(options.placing, options.device);
        let ids = self.in_order(&options.targets)?;
        let closure = self.graph.closure(&ids);
        let decisions = self.planner(options.backend, Request::default()).plan(&closure)?;
        let asked = decisions.iter().filter(|decision| ids.contains(&decision.id));
        Ok(asked.map(|decision| Attestation { node: decision.id, signer: self.signer(decision) }).collect())
    }

    /// Returns the user's own public key, if there is one that can be used.
    pub fn own_key() -> Option<PublicKey> {
        signer().ok().flatten().map(Signer::public)
    }

    /// Returns what is wrong with the statement of a node that somebody else made: a key signed it that is not
    /// trusted any more. Returns `None` for a node that was made here, or that nobody signed.
    ///
    /// # Errors
    /// Fails if the user's own key cannot be read.
    pub fn not_vouched(&self, decision: &Decision) -> Result<Option<String>> {
        let Some((key, artifact)) = decision.key.zip(decision.artifact.as_ref()) else { return Ok(None) };
        let made_here = || self.store.record(&key).is_some_and(|record| record.made_here);
        let Some(statement) = self.store.attestation(&key) else { return Ok(None) };
        let policy = policy_here(&self.graph, decision.id);
        Ok(match share::vouched(&statement, &self.trusted()?, &key, &policy) {
            Ok((claim, _)) if claim.action.artifact == *artifact => None,
            _ if made_here() => None,
            Ok(_) => Some("its statement is about other files".to_owned()),
            Err(problem) => Some(problem.to_string()),
        })
    }

    /// Returns the key that signed the statement about this recipe and this artifact, or what is wrong.
    fn signer(&self, decision: &Decision) -> Result<PublicKey, String> {
        let node = &self.graph.node(decision.id).name;
        let (Some(key), Some(artifact)) = (decision.key, &decision.artifact) else {
            return Err(format!("not built; `pipeline build {node}` makes it"));
        };
        if let Some(path) = &decision.edited {
            return Err(format!(
                "`{path}` in artifacts/{node} was changed by hand; `pipeline build` puts it right"
            ));
        }
        let statement = self.store.attestation(&key);
        let statement = statement
            .ok_or("nobody attested it; what is built with a signing key is, see `pipeline keys init`")?;
        let trusted = self.trusted().map_err(|error| error.to_string())?;
        let stage = &self.graph.node(decision.id).stage;
        let opened = share::vouched(&statement, &trusted, &key, &policy_here(&self.graph, decision.id));
        let (claim, signer) = opened.map_err(|problem| problem.to_string())?;
        let recipe = Recipe::read(&claim.action.recipe).map(|recipe| recipe.key());
        if recipe != Some(key) {
            return Err("its attestation is about another recipe".to_owned());
        }
        stage.check_volatile(&claim.action.artifact).map_err(|problem| problem.to_string())?;
        if claim.action.artifact != *artifact {
            let (is, was) = (artifact.digest().short(), claim.action.artifact.digest().short());
            return Err(format!("its attestation is about {was}, but it is {is}"));
        }
        Ok(signer)
    }

    /// Resolves the names of targets; returns the nodes, each after its inputs.
    fn in_order(&self, names: &[String]) -> Result<Vec<NodeId>> {
        let targets = self.targets(names)?;
        Ok(self.graph.order().iter().copied().filter(|id| targets.contains(id)).collect())
    }
}
