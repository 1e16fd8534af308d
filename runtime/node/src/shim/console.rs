//! The console log: what PID 1 prints, in two bounded files. The reader never holds the container up; a log that cannot be written
//! is lost instead.

use std::{
    fs::File,
    io,
    os::{fd::OwnedFd, unix::fs::FileExt},
};

use tokio::{io::Interest, task::consume_budget};

use super::scratch;
use crate::descriptor::watch;

/// Size of the current file in bytes at which it becomes the older one.
const MOST: u64 = 2 * 1024 * 1024;

/// The two files, open for reading and writing.
#[derive(Debug)]
pub(crate) struct Log {
    current: File,
    older: File,
    most: u64,
}

impl Log {
    pub(crate) fn new(current: File, older: File) -> Self {
        Self { current, older, most: MOST }
    }

    fn append(&self, text: &[u8]) -> io::Result<()> {
        // Asked each time: the shim's own messages go to the same file.
        let mut size = self.current.metadata()?.len();
        if size > 0 && size + text.len() as u64 > self.most {
            let kept = self.keep();
            self.current.set_len(0)?;
            size = 0;
            kept?;
        }
        self.current.write_all_at(text, size)
    }

    /// Copies the current file over the older one. By contents: whoever follows the current file keeps following it.
    fn keep(&self) -> io::Result<()> {
        self.older.set_len(0)?;
        let mut piece = [0; 4096];
        let mut at = 0;
        loop {
            let length = self.current.read_at(&mut piece, at)?;
            if length == 0 {
                return Ok(());
            }
            self.older.write_all_at(&piece[..length], at)?;
            at += length as u64;
        }
    }
}

/// Reads the console until PID 1 and all its heirs have closed it.
pub(crate) async fn record(console: OwnedFd, log: Log) {
    let Ok(console) = watch(console, Interest::READABLE) else { return };
    loop {
        let Ok(mut ready) = console.readable().await else { return };
        let read = ready.try_io(|console| {
            scratch::with(|buffer| {
                let length = rustix::io::read(console.get_ref(), &mut *buffer)?;
                // A full or failing disk of the host costs lines, never the container's progress.
                let _ = log.append(&buffer[..length]);
                Ok(length)
            })
        });
        match read {
            Ok(Ok(0) | Err(_)) => return,
            Ok(Ok(_)) => consume_budget().await,
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;

    fn files(dir: &std::path::Path) -> [File; 2] {
        ["console.log", "console.log.1"]
            .map(|name| File::options().read(true).write(true).create(true).truncate(false).open(dir.join(name)).unwrap())
    }

    #[test]
    fn the_log_keeps_the_newest_lines_in_two_bounded_files() {
        let dir = tempfile::tempdir().unwrap();
        let [current, older] = files(dir.path());
        let mut log = Log::new(current, older);
        log.most = 1000;
        let mut all = String::new();
        for n in 0..1000 {
            let line = format!("line {n}\n");
            log.append(line.as_bytes()).unwrap();
            all += &line;
        }
        let [current, older] = files(dir.path()).map(|file| io::read_to_string(file).unwrap());
        assert!(current.len() <= 1000 && older.len() <= 1000);
        assert!(older.len() > 900 && all.ends_with(&(older + &current)));
    }

    #[tokio::test]
    async fn a_second_run_appends_and_the_end_of_the_console_is_the_end_of_the_task() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            let [current, older] = files(dir.path());
            let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
            File::from(write).write_all(b"hello\n").unwrap();
            record(read, Log::new(current, older)).await;
        }
        assert_eq!(io::read_to_string(&files(dir.path())[0]).unwrap(), "hello\nhello\n");
    }
}
