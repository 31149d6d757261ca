//! Runs the core's controllers.
//!
//! In: changes of the view. Out: plans, applied. A key is reconciled by one worker at a time, and again only after the
//! view has what its last plan wrote.
//! Never: a controller's state between two calls.

use super::{
    Applier, Listener, Refused, clock,
    heat::Heat,
    queue::Queue,
    workqueue::{self, Figures, Row},
};
use limpet_hub_core::{Changed, Key, ObjectStore, Timestamp, control::Controller};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Reconciles at the same time: enough that their writes share fsyncs.
const WORKERS: usize = 16;
/// A plan that wants to be asked again sooner than this waits so long.
const AGAIN_MIN: Duration = Duration::from_millis(10);

type Work = (usize, Key);

pub struct Controllers {
    list: Vec<Box<dyn Controller>>,
    by_resource: HashMap<&'static str, Vec<usize>>,
    of_all: Vec<usize>,
    queue: Queue<Work>,
    heat: Heat<Work>,
    figures: Vec<Figures>,
    /// What each worker is at: a controller, and since when.
    at_work: [Mutex<Option<(usize, Instant)>>; WORKERS],
    applier: Arc<Applier>,
}

impl Controllers {
    pub fn new(list: Vec<Box<dyn Controller>>, applier: Arc<Applier>) -> Arc<Controllers> {
        let mut by_resource: HashMap<&'static str, Vec<usize>> = HashMap::new();
        let mut of_all = Vec::new();
        for (index, controller) in list.iter().enumerate() {
            for resource in controller.resources() {
                match *resource {
                    "*" => of_all.push(index),
                    resource => by_resource.entry(resource).or_default().push(index),
                }
            }
        }
        let figures = list.iter().map(|_| Figures::default()).collect();
        Arc::new(Controllers {
            list,
            by_resource,
            of_all,
            queue: Queue::new(),
            heat: Heat::new(),
            figures,
            at_work: Default::default(),
            applier,
        })
    }

    /// Starts the workers; they end with the runtime.
    pub fn start(self: &Arc<Self>) {
        for worker in 0..WORKERS {
            let controllers = Arc::clone(self);
            tokio::spawn(async move {
                loop {
                    controllers.applier.lead().wait().await;
                    let (work, waited) = controllers.queue.next_waited().await;
                    let (figures, begun) = (&controllers.figures[work.0], Instant::now());
                    figures.took(waited);
                    controllers.is_at(worker, Some((work.0, begun)));
                    controllers.work(work).await;
                    controllers.is_at(worker, None);
                    figures.gave_back(begun.elapsed());
                }
            });
        }
    }

    async fn work(&self, work: Work) {
        let controller = &self.list[work.0];
        let plan = {
            let view = self.applier.world().read();
            controller.reconcile(&view, &work.1, clock::now(), clock::seed())
        };
        for why in &plan.why {
            tracing::debug!(controller = controller.name(), key = %work.1, "{}: {}", why.reason, why.message);
        }
        let busy = !plan.changes.is_empty();
        match self.applier.try_apply(controller.name(), plan.changes).await {
            Ok(_) => {
                if let Some(at) = plan.again_at {
                    self.queue.add_at(work.clone(), instant(at).max(Instant::now() + AGAIN_MIN));
                }
                let rest = busy.then(|| self.heat.spend(work.clone(), Instant::now()));
                if rest.is_some_and(|r| r.fight) {
                    tracing::warn!(controller = controller.name(), key = %work.1,
                        "changes this object all the time; somebody else seems to change it back");
                }
                match rest.map(|r| r.pause).filter(|pause| !pause.is_zero()) {
                    Some(pause) => self.queue.rest(work, pause),
                    None => self.queue.done(work),
                }
            }
            Err(refused) => self.failed(work, refused).await,
        }
    }

    /// Tells the object's owner what was refused, then tries again later.
    async fn failed(&self, work: Work, refused: Refused) {
        let controller = &self.list[work.0];
        let Refused { status, change } = refused;
        let passing = matches!(status.code, 404 | 409 | 429) || status.code >= 500;
        if !passing {
            let plan = {
                let view = self.applier.world().read();
                controller.refused(&view, &work.1, &change, &status.message, clock::now())
            };
            if let Err(error) = self.applier.apply(controller.name(), plan.changes).await {
                tracing::debug!(controller = controller.name(), "cannot tell of a refusal: {}", error.message);
            }
        }
        let (name, key) = (controller.name(), work.1.to_string());
        self.figures[work.0].retried();
        let pause = self.queue.failed(work);
        match status.code {
            404 | 409 => tracing::debug!(controller = name, key, ?pause, "again: {}", status.message),
            _ => tracing::warn!(controller = name, key, ?pause, "{}", status.message),
        }
    }

    fn is_at(&self, worker: usize, work: Option<(usize, Instant)>) {
        *self.at_work[worker].lock().unwrap_or_else(PoisonError::into_inner) = work;
    }

    /// Figures of all controllers, as Prometheus reads them.
    pub fn text(&self) -> String {
        let row = |(name, figures)| Row { name, figures, depth: 0, under_way: vec![] };
        let names = self.list.iter().map(|c| queue_name(c.name()));
        let mut rows: Vec<Row<'_>> = names.zip(&self.figures).map(row).collect();
        self.queue.each_waiting(|work| rows[work.0].depth += 1);
        for worker in &self.at_work {
            if let Some((controller, since)) = *worker.lock().unwrap_or_else(PoisonError::into_inner) {
                rows[controller].under_way.push(since.elapsed());
            }
        }
        workqueue::text(&rows)
    }

    /// Keys that wait, for metrics.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }
}

/// What upstream calls the queue of a controller: its name without the word, with exceptions.
fn queue_name(controller: &'static str) -> &'static str {
    match controller {
        "replication-controller" => "replicationmanager",
        "endpoint-slice-controller" => "endpoint_slice",
        "endpoint-slice-mirroring-controller" => "endpoint_slice_mirroring",
        "garbage-collector-controller" => "garbage_collector_attempt_to_delete",
        "taint-eviction-controller" => "noexec_taint_node",
        "resourcequota-controller" => "resourcequota_primary",
        "clusterrole-aggregation-controller" => "ClusterRoleAggregator",
        "persistentvolumeclaim-controller" => "claims",
        "persistentvolume-controller" => "volumes",
        "persistentvolumeclaim-protection-controller" => "pvcprotection",
        "persistentvolume-protection-controller" => "pvprotection",
        "ephemeral-volume-controller" => "ephemeral_volume",
        "resourceclaim-controller" => "resource_claim",
        "token-cleaner-controller" => "token_cleaner",
        "bootstrap-signer-controller" => "bootstrap_signer_queue",
        "serviceaccount-token-controller" => "serviceaccount_tokens_secret",
        name => name.strip_suffix("-controller").unwrap_or(name),
    }
}

/// A moment of the wall clock as one of the runtime's.
pub(super) fn instant(at: Timestamp) -> Instant {
    let left = at.as_millisecond() - clock::now().as_millisecond();
    Instant::now() + Duration::from_millis(left.max(0) as u64)
}

impl Listener for Controllers {
    fn is_of_leader(&self) -> bool {
        true
    }

    fn changed(&self, view: &ObjectStore, changed: &Changed) {
        let own = self.by_resource.get(&*changed.key.resource).into_iter().flatten();
        for index in own.chain(&self.of_all) {
            for key in self.list[*index].keys_for(view, changed) {
                self.queue.add((*index, key));
            }
        }
    }
}
