//! Texts for people, on standard output and standard error; a reader that left changes nothing.

use std::io::{self, Write};

use crate::exit::Exit;

/// Writes a part of a command's answer to standard output. A reader that has seen enough and left (`| head -1`) is no
/// failure.
///
/// # Errors
/// Standard output takes nothing, as on a full disk.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Writes the whole answer of a command as [`print`] does, and says how the command ends.
pub fn answer(text: &str) -> Exit {
    match print(text) {
        Ok(()) => Exit::Done,
        Err(error) => {
            say(&format_args!("the answer can't be written to standard output: {error}"));
            Exit::Failed("standard output".to_owned())
        }
    }
}

/// Shows a text on standard output from a thread of its own: whether and when somebody reads it changes nothing.
pub fn show(text: String) {
    let write = move || {
        let mut stdout = io::stdout().lock();
        // Nobody is told when nobody reads.
        let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    };
    // A process that can't start one more thread has worse to tell.
    let _ = std::thread::Builder::new().name("show".to_owned()).spawn(write);
}

/// One text for people on standard error, which is where logs go too.
pub fn say(text: &dyn std::fmt::Display) {
    // Nobody is left to tell when standard error is closed.
    let _ = writeln!(io::stderr(), "{text}");
}
