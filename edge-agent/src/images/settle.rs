//! Unpacked layers on their way to the disk: together, all that came within a short time, so that what they were packed in does
//! not get there with them (decision 0118).
//!
//! In: unpacked layers under `tmp/`. Out: the same under their final names, all of them on the disk before that.
//! Never: a final name for what a power cut could still spoil; a wait while another pull wants the layer.

use super::error::ImageError;
use super::files::{self, Files};
use super::store::Inner;
use futures_util::stream::{FuturesUnordered, Stream, StreamExt};
use std::fs::{self, File};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::Instant;

/// What a power cut, or the end of a pull, may take: layers whose download began so little before. The kernel, too, keeps what is
/// written for half a minute.
const WAIT: Duration = Duration::from_secs(20);

/// A directory that goes when nobody keeps it.
#[derive(Debug)]
pub struct Work(pub PathBuf);

impl Drop for Work {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A whole layer under a name in `tmp/`.
#[derive(Debug)]
pub struct Unpacked {
    pub work: Work,
    /// Where it belongs.
    pub target: PathBuf,
}

/// Who brings a layer; others wait for it.
#[derive(Debug)]
pub struct Turn {
    begun: Instant,
    _held: OwnedMutexGuard<()>,
}

/// A layer that is to settle, and with it the turn ends.
pub type Brought = (Unpacked, Turn);

/// How many pulls wait for a layer that another one brings.
#[derive(Debug, Default)]
pub struct Queue(watch::Sender<usize>);

struct Waits<'a>(&'a Queue);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.0.send_modify(|n| *n -= 1);
    }
}

impl Queue {
    pub async fn turn(&self, lock: Arc<Mutex<()>>) -> Turn {
        let held = match lock.clone().try_lock_owned() {
            Ok(held) => held,
            Err(_) => {
                self.0.send_modify(|n| *n += 1);
                let _waits = Waits(self);
                lock.lock_owned().await
            }
        };
        Turn { begun: Instant::now(), _held: held }
    }
}

/// All layers of a pull, those that come and those that are here (`None`). After an error those that came settle, too.
pub async fn all(store: &Inner, coming: impl Stream<Item = Result<Option<Brought>, ImageError>>) -> Result<(), ImageError> {
    let mut coming = pin!(coming.fuse());
    let mut wanted = store.queue.0.subscribe();
    let mut waiting: Vec<Brought> = Vec::new();
    let mut under_way: FuturesUnordered<JoinHandle<Result<(), ImageError>>> = FuturesUnordered::new();
    let mut result = Ok(());
    let mut more = true;
    while more || !under_way.is_empty() {
        let due = waiting.iter().map(|(_, turn)| turn.begun + WAIT).min();
        tokio::select! {
            next = coming.next(), if more => match next {
                Some(Ok(brought)) => waiting.extend(brought),
                Some(Err(error)) => result = result.and(Err(error)),
                None => more = false,
            },
            () = settles(due, &mut wanted) => under_way.push(settle(&store.files, &mut waiting)),
            Some(done) = under_way.next() => {
                let done = done.unwrap_or_else(|e| Err(ImageError::disk("writing layers")(std::io::Error::other(e))));
                result = result.and(done);
            }
        }
        more &= result.is_ok();
        if !more && !waiting.is_empty() {
            under_way.push(settle(&store.files, &mut waiting));
        }
    }
    result
}

/// Until those that wait have waited long enough, or somebody waits for a layer; for ever when none waits.
async fn settles(due: Option<Instant>, wanted: &mut watch::Receiver<usize>) {
    match due {
        None => std::future::pending().await,
        Some(due) => {
            // An error says that the time is over: the sender is the store's own.
            let _ = tokio::time::timeout_at(due, wanted.wait_for(|waiting| *waiting > 0)).await;
        }
    }
}

fn settle(files: &Files, waiting: &mut Vec<Brought>) -> JoinHandle<Result<(), ImageError>> {
    let (files, layers, all) = (files.clone(), files.sub("layers"), std::mem::take(waiting));
    spawn_blocking(move || {
        let settled = || -> std::io::Result<()> {
            // One call for whole trees: fsync of every file would write a card's metadata a thousand times.
            limpet_oci::unpack::sync_file_system(&File::open(&layers)?)?;
            for (layer, _) in &all {
                if layer.target.exists() {
                    // What a failing card has left of it, or it would not have been brought again. Containers that run from it
                    // keep it until the agent starts anew.
                    fs::rename(&layer.target, files.temporary())?;
                }
                fs::rename(&layer.work.0, &layer.target)?;
            }
            files::sync_directory(&layers)
        };
        settled().map_err(ImageError::disk("writing layers to the disk"))
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::World;
    use super::*;
    use crate::images::RegistryOptions;
    use tokio::sync::mpsc;

    type Coming = Result<Option<Brought>, ImageError>;

    fn unpacked(world: &World, name: &str) -> Unpacked {
        let files = &world.store.0.files;
        let work = files.temporary();
        fs::create_dir_all(work.join("fs")).unwrap();
        fs::write(work.join("meta"), name).unwrap();
        Unpacked { work: Work(work), target: files.sub("layers").join(name) }
    }

    async fn brought(world: &World, name: &str) -> Coming {
        let turn = world.store.0.queue.turn(world.store.0.lock(name)).await;
        Ok(Some((unpacked(world, name), turn)))
    }

    fn settled(world: &World) -> Vec<String> {
        let entries = fs::read_dir(world.store.0.files.sub("layers")).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Everybody else, and the threads that write, get so many turns.
    async fn others() {
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn stream(mut coming: mpsc::Receiver<Coming>) -> impl Stream<Item = Coming> {
        futures_util::stream::poll_fn(move |context| coming.poll_recv(context))
    }

    #[tokio::test]
    async fn layers_settle_together_or_when_somebody_waits() {
        let world = World::new(RegistryOptions::default());
        let (sender, coming) = mpsc::channel(4);
        let store = world.store.clone();
        let pull = tokio::spawn(async move { all(&store.0, stream(coming)).await });
        for name in ["a", "b"] {
            sender.send(brought(&world, name).await).await.unwrap();
        }
        sender.send(Ok(None)).await.unwrap();
        others().await;
        assert_eq!(settled(&world), Vec::<String>::new());
        // Another pull wants one of them, and finds it.
        world.store.0.queue.turn(world.store.0.lock("a")).await;
        assert_eq!(settled(&world), ["a", "b"]);
        sender.send(brought(&world, "c").await).await.unwrap();
        others().await;
        assert_eq!(settled(&world), ["a", "b"], "nobody waits any more");
        drop(sender);
        pull.await.unwrap().unwrap();
        assert_eq!(settled(&world), ["a", "b", "c"]);
    }

    #[tokio::test]
    async fn what_took_long_settles_at_once_and_after_an_error_all_of_it() {
        let world = World::new(RegistryOptions::default());
        let (sender, coming) = mpsc::channel(4);
        let store = world.store.clone();
        let pull = tokio::spawn(async move { all(&store.0, stream(coming)).await });
        let Ok(Some((layer, mut turn))) = brought(&world, "slow").await else { panic!("no layer") };
        turn.begun -= WAIT;
        sender.send(Ok(Some((layer, turn)))).await.unwrap();
        let soon = Instant::now() + WAIT / 2;
        while settled(&world) != ["slow"] {
            assert!(Instant::now() < soon, "it waits");
            others().await;
        }
        sender.send(brought(&world, "quick").await).await.unwrap();
        sender.send(Err(ImageError::Config("over".into()))).await.unwrap();
        assert!(matches!(pull.await.unwrap(), Err(ImageError::Config(_))));
        assert_eq!(settled(&world), ["quick", "slow"]);
        assert!(fs::read_dir(world.store.0.files.sub("tmp")).unwrap().next().is_none());
    }

    #[tokio::test]
    async fn a_pull_that_is_given_up_leaves_nothing() {
        let world = World::new(RegistryOptions::default());
        let (sender, coming) = mpsc::channel(4);
        let store = world.store.clone();
        let pull = tokio::spawn(async move { all(&store.0, stream(coming)).await });
        sender.send(brought(&world, "a").await).await.unwrap();
        others().await;
        pull.abort();
        assert!(pull.await.unwrap_err().is_cancelled());
        // Its turn has ended.
        world.store.0.queue.turn(world.store.0.lock("a")).await;
        assert_eq!(settled(&world), Vec::<String>::new());
        assert!(fs::read_dir(world.store.0.files.sub("tmp")).unwrap().next().is_none());
    }
}
