//! A store at an address that the `object_store` crate understands: `s3://`, `gs://`, `az://`, `http(s)://` (WebDAV),
//! `file:///`, `memory:///`.
//!
//! Every chunk is an object of its own, `chunks/<first two digits>/<id>`. So several agents write without knowing of each
//! other, a save that was broken off goes on with the chunks that are not there, and sweeping is listing and deleting:
//! nothing has to be kept in step. What that costs, a request a chunk, is bounded by the size of chunks (small files share
//! one) and hidden by asking for many at a time. Objects tell when they were put but not when they were asked
//! for, so one that is older than a week is said to be missing, put again, and young again.

use std::collections::HashSet;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore as Objects, ObjectStoreExt as _};
use tokio::runtime::Runtime;
use url::Url;

use crate::{ChunkId, ChunkStore, Error, MAX_PACKED, Packed, Result};

/// An object that was put longer ago is put again when a save asks for it.
const REFRESHED_AFTER: Duration = Duration::from_hours(7 * 24);

/// Requests at a time, of one call.
const REQUESTS: usize = 32;

/// Options come from environment variables that begin so.
const PREFIXES: [&str; 3] = ["AWS_", "GOOGLE_", "AZURE_"];

/// A store of chunks in an object store.
pub struct ObjectStore {
    objects: Arc<dyn Objects>,
    /// The address's path.
    root: Path,
    /// Without password and options, for messages.
    url: String,
    /// Only dropping takes it out.
    runtime: Option<Runtime>,
}

impl ObjectStore {
    /// The store at this address. The options are those of the `object_store` crate, such as `aws_region`; the names of
    /// environment variables do too, in any case. Nothing is connected to yet.
    pub fn new(
        url: &str,
        options: impl IntoIterator<Item = (String, String)>,
    ) -> Result<ObjectStore> {
        let bad = |reason: String| Error::Address { url: without_secrets(url), reason };
        let parsed = Url::parse(url).map_err(|error| {
            bad(format!("not an address of an object store, such as s3://bucket/path: {error}"))
        })?;
        // reqwest comes without cryptography of its own; it does no harm if somebody else was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut options: Vec<(String, String)> =
            options.into_iter().map(|(key, value)| (key.to_ascii_lowercase(), value)).collect();
        if parsed.scheme() == "http" {
            options.push(("allow_http".into(), "true".into()));
        }
        let (mut objects, root) =
            object_store::parse_url_opts(&parsed, options).map_err(|error| {
                // It may repeat the address.
                bad(one_line(&error).replace(parsed.as_str(), &without_secrets(url)))
            })?;
        if parsed.scheme() == "file" {
            objects = Box::new(LocalFileSystem::new().with_fsync(true));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("object-store")
            .enable_all()
            .build()
            .map_err(|error| bad(format!("cannot start threads: {error}")))?;
        Ok(ObjectStore {
            objects: objects.into(),
            root,
            url: without_secrets(url),
            runtime: Some(runtime),
        })
    }

    /// The options that the environment has: `AWS_*`, `GOOGLE_*` and `AZURE_*`.
    pub fn options_of_environment() -> Vec<(String, String)> {
        let is_ours = |key: &str| PREFIXES.iter().any(|prefix| key.starts_with(prefix));
        std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(key, _)| is_ours(key))
            .collect()
    }

    /// Removes objects that are not live and were put longer ago than `age`; how many. A save may rely on chunks that are
    /// up to a week old, and its snapshot is live only when it is over: `age` has to be longer than a week and a save.
    pub fn sweep(&self, live: &dyn Fn(&ChunkId) -> bool, age: Duration) -> Result<u64> {
        let objects = self.objects.clone();
        let chunks = self.root.clone().join("chunks");
        let listed = self.wait("list the chunks", async move {
            objects.list(Some(&chunks)).try_collect::<Vec<_>>().await
        })?;
        let now = now();
        let dead: Vec<Path> = listed
            .into_iter()
            .filter(|object| now - object.last_modified.timestamp() >= age.as_secs() as i64)
            .filter(|object| {
                let id = object.location.filename().and_then(|name| name.parse().ok());
                id.is_some_and(|id| !live(&id))
            })
            .map(|object| object.location)
            .collect();
        let count = dead.len() as u64;
        let objects = self.objects.clone();
        self.wait("delete dead chunks", async move {
            let results = objects.delete_stream(stream::iter(dead.into_iter().map(Ok)).boxed());
            results
                .try_for_each(|_| std::future::ready(Ok(())))
                .await
                .or_else(|error| if is_not_found(&error) { Ok(()) } else { Err(error) })
        })?;
        Ok(count)
    }

    fn path(&self, id: &ChunkId) -> Path {
        let name = id.to_string();
        self.root.clone().join("chunks").join(&name[..2]).join(name.as_str())
    }

    /// Runs it on the store's own threads and waits. Unlike `block_on` that works on any thread.
    fn wait<T: Send + 'static>(
        &self,
        action: &str,
        work: impl Future<Output = object_store::Result<T>> + Send + 'static,
    ) -> Result<T> {
        let failed =
            |reason: String| Error::Remote { action: format!("{action} of {}", self.url), reason };
        let Some(runtime) = &self.runtime else { return Err(failed("it is closed".into())) };
        let (send, receive) = mpsc::sync_channel(1);
        runtime.handle().spawn(async move { send.send(work.await) });
        match receive.recv() {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(failed(one_line(&error))),
            Err(_) => Err(failed("the request was broken off".into())),
        }
    }
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        // Waiting for its threads would be a panic where async code drops the store.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl ChunkStore for ObjectStore {
    fn missing(&self, ids: &[ChunkId]) -> Result<Vec<ChunkId>> {
        let oldest = now() - REFRESHED_AFTER.as_secs() as i64;
        let asked: Vec<(ChunkId, Path)> = ids.iter().map(|id| (*id, self.path(id))).collect();
        let objects = self.objects.clone();
        self.wait("ask for chunks", async move {
            stream::iter(asked)
                .map(|(id, path)| {
                    let objects = objects.clone();
                    async move {
                        match objects.head(&path).await {
                            Ok(meta) if meta.last_modified.timestamp() >= oldest => Ok(None),
                            Ok(_) => Ok(Some(id)),
                            Err(error) if is_not_found(&error) => Ok(Some(id)),
                            Err(error) => Err(error),
                        }
                    }
                })
                .buffered(REQUESTS)
                .try_filter_map(|missing| std::future::ready(Ok(missing)))
                .try_collect()
                .await
        })
    }

    fn put(&self, chunks: &[Packed]) -> Result<()> {
        let mut seen = HashSet::new();
        let puts: Vec<(Path, Bytes)> = chunks
            .iter()
            .filter(|chunk| seen.insert(chunk.id))
            .map(|chunk| (self.path(&chunk.id), chunk.bytes.clone()))
            .collect();
        let objects = self.objects.clone();
        self.wait("put chunks", async move {
            stream::iter(puts)
                .map(|(path, bytes)| {
                    let objects = objects.clone();
                    async move { objects.put(&path, bytes.into()).await }
                })
                .buffer_unordered(REQUESTS)
                .try_for_each(|_| std::future::ready(Ok(())))
                .await
        })
    }

    fn get(&self, ids: &[ChunkId]) -> Result<Vec<Packed>> {
        let asked: Vec<(ChunkId, Path)> = ids.iter().map(|id| (*id, self.path(id))).collect();
        let objects = self.objects.clone();
        // What is wrong with one chunk is told apart from what is wrong with the store.
        let wrong: Arc<Mutex<Option<Error>>> = Arc::default();
        let told = wrong.clone();
        let got = self.wait("get chunks", async move {
            stream::iter(asked)
                .map(|(id, path)| {
                    let (objects, told) = (objects.clone(), told.clone());
                    async move {
                        let tell = |error| {
                            told.lock()
                                .unwrap_or_else(PoisonError::into_inner)
                                .get_or_insert(error);
                        };
                        let object = objects.get(&path).await.inspect_err(|error| {
                            if is_not_found(error) {
                                tell(Error::Missing { id });
                            }
                        })?;
                        if object.meta.size > MAX_PACKED as u64 {
                            tell(Error::Damaged { id, reason: "it is longer than a chunk may be" });
                            return Ok(Packed { id, bytes: Bytes::new() });
                        }
                        Ok(Packed { id, bytes: object.bytes().await? })
                    }
                })
                .buffered(REQUESTS)
                .try_collect()
                .await
        });
        match wrong.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error),
            None => got,
        }
    }
}

fn is_not_found(error: &object_store::Error) -> bool {
    matches!(error, object_store::Error::NotFound { .. })
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64)
}

/// The address without what may be secret: user, password, query.
fn without_secrets(url: &str) -> String {
    let address = url.split(['?', '#']).next().unwrap_or_default();
    match address.split_once("://") {
        Some((scheme, rest)) => {
            let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            format!("{scheme}://{}{path}", host.rsplit('@').next().unwrap_or_default())
        }
        None => address.to_owned(),
    }
}

/// Errors of HTTP stores have bodies of many lines.
fn one_line(error: &object_store::Error) -> String {
    let text = error.to_string();
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((at, _)) = line.char_indices().nth(500) {
        line.truncate(at);
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_without_secrets() {
        for (url, shown) in [
            ("s3://bucket/a/b", "s3://bucket/a/b"),
            ("https://me:secret@host:1/a?sig=secret#x", "https://host:1/a"),
            ("https://me:secret@host", "https://host"),
            ("nothing", "nothing"),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
        let error = ObjectStore::new("ftp://me:secret@host/", []).err().unwrap();
        assert_eq!(error.code(), "blobs/address");
        assert!(!error.to_string().contains("secret"), "{error}");
    }

    #[test]
    fn chunks_are_kept_in_memory_and_in_files() {
        let dir = tempfile::tempdir().unwrap();
        for url in ["memory:///a/b".to_owned(), format!("file://{}", dir.path().display())] {
            let store = ObjectStore::new(&url, []).unwrap();
            let [one, two] = [b"one", b"two"].map(|content| Packed::new(content).unwrap());
            assert_eq!(store.missing(&[one.id, two.id]).unwrap(), [one.id, two.id]);
            store.put(&[one.clone(), one.clone()]).unwrap();
            assert_eq!(store.missing(&[one.id, two.id]).unwrap(), [two.id]);
            assert_eq!(store.get(&[two.id]).unwrap_err().code(), "blobs/missing-chunk");
            store.put(std::slice::from_ref(&two)).unwrap();
            assert_eq!(store.get(&[two.id, one.id]).unwrap(), [two.clone(), one.clone()]);
            assert_eq!(store.sweep(&|_| false, Duration::from_secs(60)).unwrap(), 0);
            assert_eq!(store.sweep(&|id| *id == one.id, Duration::ZERO).unwrap(), 1);
            assert_eq!(store.missing(&[one.id, two.id]).unwrap(), [two.id]);
        }
    }

    #[test]
    fn a_store_may_be_used_and_dropped_by_async_code() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = ObjectStore::new("memory:///", []).unwrap();
            assert_eq!(store.missing(&[ChunkId::of(b"x")]).unwrap().len(), 1);
        });
    }
}
