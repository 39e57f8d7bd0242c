//! Blobs: resumed where an earlier try broke off, and checked at the end.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use super::client::Client;
use super::http::{Answer, Call};
use super::patience::Patience;
use super::{RegistryError, to_pull};
use crate::content::{ContentError, Descriptor, Partial, Store};

/// Bytes that count as progress: then earlier failures are forgotten.
const PROGRESS: u64 = 1 << 20;
/// How often a blob is begun anew because it was another one at its end.
const MAX_OTHERS: u32 = 2;
/// Bytes read at once.
const BUFFER: usize = 128 << 10;

/// One blob that is to come.
pub(super) struct Download<'a> {
    pub store: &'a Store,
    pub repository: &'a str,
    pub blob: &'a Descriptor,
    /// Another blob has failed: this one is not needed any more.
    pub stop: &'a AtomicBool,
    /// Is told how many bytes there are.
    pub progress: &'a (dyn Fn(u64) + Sync),
}

impl Download<'_> {
    /// Gets it from the first of these hosts that has it.
    pub fn get(&self, clients: &[&Client]) -> Result<(), RegistryError> {
        let mut errors = Vec::new();
        for client in clients {
            match self.get_from(client) {
                Err(error) if !matches!(error, RegistryError::Content(_)) && !self.is_stopped() => {
                    errors.push(error);
                }
                done => return done,
            }
        }
        match errors.pop() {
            Some(only) if errors.is_empty() => Err(only),
            Some(last) => Err(RegistryError::Everywhere(errors.into_iter().chain([last]).collect())),
            None => Ok(()),
        }
    }

    fn get_from(&self, client: &Client) -> Result<(), RegistryError> {
        let Descriptor { digest, size, .. } = self.blob;
        let mut patience = Patience::new(client.settings().retries);
        let mut others = 0;
        loop {
            let mut partial = self.store.partial(digest)?;
            if partial.is_complete() {
                return Ok(());
            }
            let before = partial.len();
            match self.piece(client, &mut partial) {
                Ok(()) => match partial.finish(*size) {
                    Err(found @ (ContentError::Digest { .. } | ContentError::Size { .. })) => {
                        others += 1;
                        if others == MAX_OTHERS {
                            let (at, found) = (client.url().authority().into(), Box::new(found));
                            return Err(RegistryError::Other { at, digest: *digest, found });
                        }
                    }
                    done => return Ok(done?),
                },
                Err(error) if self.is_stopped() => return Err(error),
                Err(error) => {
                    if partial.len() >= before.saturating_add(PROGRESS) {
                        patience.renew();
                    }
                    // Others may go on with it during the pause.
                    drop(partial);
                    patience.after(error)?;
                }
            }
        }
    }

    /// Appends what one request brings.
    fn piece(&self, client: &Client, partial: &mut Partial) -> Result<(), RegistryError> {
        let Descriptor { digest, size, .. } = self.blob;
        if partial.len() > *size {
            partial.restart()?;
        }
        (self.progress)(partial.len());
        if partial.len() == *size {
            return Ok(());
        }
        let doing = format!("get {}@{digest}", self.repository);
        let url = client.url().at(&format!("/v2/{}/blobs/{digest}", self.repository));
        let mut call = Call::get(&doing, url);
        if !partial.is_empty() {
            call = call.header("range", format!("bytes={}-", partial.len()));
        }
        let answer = client.expect(&call, &to_pull(self.repository), &[200, 206, 416])?;
        self.place(&doing, &answer, partial)?;
        self.copy(&doing, answer, partial)
    }

    /// Sees to it that what comes belongs where the partial blob ends.
    fn place(&self, doing: &str, answer: &Answer, partial: &mut Partial) -> Result<(), RegistryError> {
        let start = match answer.status {
            200 => 0,
            206 => answer.header("content-range").and_then(range_start).unwrap_or(u64::MAX),
            _ => u64::MAX,
        };
        if start != partial.len() {
            partial.restart()?;
        }
        if start != partial.len() {
            let why = io::Error::other("it cannot be resumed there, and is begun anew");
            return Err(RegistryError::Broken { doing: doing.into(), source: why });
        }
        let left = self.blob.size - partial.len();
        match answer.number("content-length") {
            Some(length) if length != left => Err(RegistryError::Nonsense {
                doing: doing.into(),
                at: answer.url.authority().into(),
                why: format!("has {length} bytes of it where there should be {left}"),
            }),
            _ => Ok(()),
        }
    }

    fn copy(&self, doing: &str, answer: Answer, partial: &mut Partial) -> Result<(), RegistryError> {
        let at = answer.url.authority().to_owned();
        let mut source = answer.reader();
        let mut buffer = vec![0; BUFFER];
        loop {
            let broken = |source| RegistryError::Broken { doing: doing.into(), source };
            if self.is_stopped() {
                return Err(broken(io::ErrorKind::Interrupted.into()));
            }
            let left = self.blob.size - partial.len();
            let count = match source.read(&mut buffer) {
                Ok(0) if left == 0 => return Ok(()),
                Ok(0) => return Err(broken(io::ErrorKind::UnexpectedEof.into())),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(broken(error)),
            };
            if count as u64 > left {
                let why = format!("sends more than the {} bytes that it is said to have", self.blob.size);
                return Err(RegistryError::Nonsense { doing: doing.into(), at, why });
            }
            let path = self.store.dir().to_owned();
            let failed = |source| ContentError::Io { doing: "write to", path, source };
            partial.write_all(&buffer[..count]).map_err(failed)?;
            (self.progress)(partial.len());
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// The first byte of `bytes 5-9/10`.
fn range_start(text: &str) -> Option<u64> {
    let range = text.trim().strip_prefix("bytes")?.trim_start();
    range.split_once('-')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(range_start("bytes 5-9/10"), Some(5));
        for bad in ["", "bytes */10", "items 5-9/10", "bytes -9/10", "5-9"] {
            assert_eq!(range_start(bad), None, "{bad}");
        }
    }
}
