//! Console logs: what PID 1 of a berth and its shim printed, from the two files that the shim keeps.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{sync::mpsc, time::sleep};

/// Bytes of one file that are read at most; the shim keeps each well below.
const MOST: u64 = 8 << 20;
const PIECE: usize = 32 * 1024;
/// How often a followed file is looked at. A watch would tell at once, but root has 128 inotify instances and everybody may follow.
const PACE: Duration = Duration::from_millis(200);

/// The last lines of a berth's console.
#[derive(Clone, Debug)]
pub(crate) struct Console {
    pub(crate) older: PathBuf,
    pub(crate) current: PathBuf,
}

impl Console {
    /// The last `tail` lines (all: `None`), and where the current file ended. Blocking.
    pub(crate) fn read(&self, tail: Option<usize>) -> io::Result<(Vec<u8>, u64)> {
        let mut text = Vec::new();
        if let Ok(older) = File::open(&self.older) {
            older.take(MOST).read_to_end(&mut text)?;
        }
        let before = text.len();
        match File::open(&self.current) {
            Ok(current) => current.take(MOST).read_to_end(&mut text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        let end = (text.len() - before) as u64;
        let start = tail.map_or(0, |lines| last_lines(&text, lines));
        Ok((text.split_off(start), end))
    }

    /// Sends the last lines, then, if asked, what is added until the file is removed or the receiver is gone.
    pub(crate) async fn send(self, tail: Option<usize>, follow: bool, to: mpsc::Sender<io::Result<Vec<u8>>>) {
        if let Err(error) = self.run(tail, follow, &to).await {
            let _ = to.send(Err(error)).await;
        }
    }

    async fn run(&self, tail: Option<usize>, follow: bool, to: &mpsc::Sender<io::Result<Vec<u8>>>) -> io::Result<()> {
        // Opened before it is read: nothing falls between, whatever becomes of the name.
        let added_to = if follow { open(&self.current)? } else { None };
        let console = self.clone();
        let (text, mut at) = tokio::task::spawn_blocking(move || console.read(tail)).await.map_err(io::Error::other)??;
        for piece in text.chunks(PIECE) {
            if to.send(Ok(piece.to_vec())).await.is_err() {
                return Ok(());
            }
        }
        let Some(mut file) = added_to else { return Ok(()) };
        loop {
            tokio::select! {
                () = to.closed() => return Ok(()),
                () = sleep(PACE) => {}
            }
            while let Some(piece) = added(&mut file, &mut at)? {
                if to.send(Ok(piece)).await.is_err() {
                    return Ok(());
                }
            }
            if file.metadata()?.nlink() == 0 {
                return Ok(());
            }
        }
    }
}

fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        file => file.map(Some),
    }
}

/// The next piece behind `at`. A file that became shorter was begun anew.
fn added(file: &mut File, at: &mut u64) -> io::Result<Option<Vec<u8>>> {
    if file.metadata()?.len() < *at {
        *at = 0;
    }
    file.seek(SeekFrom::Start(*at))?;
    let mut piece = vec![0; PIECE];
    let length = file.read(&mut piece)?;
    *at += length as u64;
    piece.truncate(length);
    Ok((length > 0).then_some(piece))
}

/// Where the last `lines` lines begin; a last line without its end counts.
fn last_lines(text: &[u8], lines: usize) -> usize {
    let body = text.strip_suffix(b"\n").unwrap_or(text);
    if lines == 0 {
        return text.len();
    }
    body.iter().enumerate().rev().filter(|(_, b)| **b == b'\n').nth(lines - 1).map_or(0, |(at, _)| at + 1)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_last_lines_are_counted_from_the_end() {
        let text = b"one\ntwo\nthree\n";
        assert_eq!(&text[last_lines(text, 2)..], b"two\nthree\n");
        assert_eq!(&text[last_lines(text, 9)..], text);
        assert_eq!(&text[last_lines(text, 0)..], b"");
        assert_eq!(&b"a\nb"[last_lines(b"a\nb", 1)..], b"b");
    }

    #[tokio::test]
    async fn a_follower_sees_both_files_what_is_added_and_a_file_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let console = Console { older: dir.path().join("1"), current: dir.path().join("0") };
        std::fs::write(&console.older, "old\n").unwrap();
        let mut current = File::options().append(true).create(true).open(&console.current).unwrap();
        current.write_all(b"new\n").unwrap();
        let (to, mut from) = mpsc::channel(4);
        let task = tokio::spawn(console.clone().send(None, true, to));
        assert_eq!(from.recv().await.unwrap().unwrap(), b"old\nnew\n");
        current.write_all(b"more\n").unwrap();
        assert_eq!(from.recv().await.unwrap().unwrap(), b"more\n");
        current.set_len(0).unwrap();
        current.write_all(b"again\n").unwrap();
        assert_eq!(from.recv().await.unwrap().unwrap(), b"again\n");
        std::fs::remove_file(&console.current).unwrap();
        drop(current);
        assert!(from.recv().await.is_none());
        task.await.unwrap();
    }
}
