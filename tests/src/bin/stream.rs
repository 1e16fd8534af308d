//! Connects its standard input and output with a Unix socket, byte for byte, half-close included: a client without manners, to be run
//! as any user.
#![forbid(unsafe_code)]

use std::{
    env,
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    process::ExitCode,
    thread,
};

fn main() -> ExitCode {
    let Some(path) = env::args_os().nth(1) else {
        eprintln!("usage: berth-tests-stream SOCKET [open]   (open: the end of the input is not passed on)");
        return ExitCode::from(2);
    };
    let half_close = env::args_os().nth(2).is_none();
    let copied = UnixStream::connect(&path).and_then(|socket| {
        let mut to = socket.try_clone()?;
        // Ends with the process when the other side closes first.
        thread::spawn(move || {
            let done = copy(&mut io::stdin().lock(), &mut to);
            if half_close {
                let _ = to.shutdown(Shutdown::Write);
            }
            done
        });
        copy(&mut &socket, &mut io::stdout().lock())
    });
    match copied {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Passes on every part at once.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = [0; 64 * 1024];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            length => to.write_all(&buffer[..length]).and_then(|()| to.flush())?,
        }
    }
}
