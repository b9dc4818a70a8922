//! Our own programs (`goldleaves`, `gateway`, `meter-worker`, …) as child processes: started with exactly the settings
//! the test gives, their addresses read from what they print, killed, interrupted, waited for.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use goldleaves_toolbox::{GOLDLEAVES_BIN_DIR, target_directory};
use rustix::process::{Pid, Signal, kill_process};

use crate::child::Child;
use crate::disk::SmallDisk;

/// The longest time a program may take to print an address, or to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// The same for one that a profiler runs, some fifty times slower.
const PATIENCE_UNDER: Duration = Duration::from_secs(1_800);
/// The longest time a command may take that is run to its end.
const COMMAND_PATIENCE: Duration = Duration::from_secs(300);

/// The way a program is to be started.
#[derive(Debug, Clone)]
pub struct Launch {
    program: String,
    arguments: Vec<OsString>,
    settings: BTreeMap<String, OsString>,
    /// The working directory, which also gets the output.
    folder: PathBuf,
    /// The file that it reads as standard input.
    input: Option<PathBuf>,
    /// The one core it may run on.
    core: Option<usize>,
    /// A folder that is a file system of its own for this program, and its size in MiB.
    small_disk: Option<(PathBuf, u32)>,
    /// True if that is full.
    fill: bool,
    /// The words that start it on a disk that outlives it.
    disk: Vec<String>,
    /// The socket that it is to listen at for its clients, as a service manager hands it over.
    socket: Option<Arc<TcpListener>>,
    /// True if it is the one with what only tests may do.
    debug: bool,
    /// The words of the program that runs it, such as a profiler's.
    under: Vec<OsString>,
    patience: Duration,
}

/// A program of ours that was started.
#[derive(Debug)]
pub struct Program {
    child: Child,
    name: String,
    stdout: PathBuf,
    stderr: PathBuf,
    patience: Duration,
}

impl Launch {
    /// The program of this name, to run in `folder`. Of this process's environment it sees only `PATH`, `HOME` and what
    /// coverage tools set.
    pub fn new(program: &str, folder: &Path) -> Self {
        let folder = folder.to_path_buf();
        Self {
            program: program.to_owned(),
            arguments: Vec::new(),
            settings: BTreeMap::new(),
            folder,
            input: None,
            core: None,
            small_disk: None,
            fill: false,
            disk: Vec::new(),
            socket: None,
            debug: false,
            under: Vec::new(),
            patience: PATIENCE,
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Sets an environment variable; the last one of a name holds.
    #[must_use]
    pub fn setting(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.settings.insert(name.to_owned(), value.into());
        self
    }

    /// Sets many.
    #[must_use]
    pub fn settings<'a>(mut self, settings: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        self.settings.extend(settings.into_iter().map(|(name, value)| (name.to_owned(), value.into())));
        self
    }

    /// Gives it a file on standard input; without one there is nothing to read.
    #[must_use]
    pub fn input(mut self, file: &Path) -> Self {
        self.input = Some(file.to_path_buf());
        self
    }

    /// Keeps the program on one core from its first instruction (with util-linux' `taskset`), for measuring.
    #[must_use]
    pub fn on_core(mut self, core: usize) -> Self {
        self.core = Some(core);
        self
    }

    /// Gives the program, and nobody else, a file system in memory of so many MiB at `folder`, which can be filled through
    /// [`Program::path_seen`]. It takes util-linux' `unshare`, and a kernel that lets this user have a mount namespace.
    #[must_use]
    pub fn on_small_disk(mut self, folder: &Path, mib: u32) -> Self {
        self.small_disk = Some((folder.to_path_buf(), mib));
        self
    }

    /// The same, full from the start: what `folder` holds is on it, and a file of the name `filler` takes all that is left.
    #[must_use]
    pub fn on_full_disk(mut self, folder: &Path, mib: u32) -> Self {
        self.fill = true;
        self.on_small_disk(folder, mib)
    }

    /// Starts it on a small disk that is there before it and after it.
    #[must_use]
    pub fn on_disk(mut self, disk: &SmallDisk) -> Self {
        self.disk = disk.enter();
        self.disk.push(format!("--wd={}", self.folder.display()));
        self
    }

    /// Hands it a listening socket by the name `gateway`, as systemd does (`LISTEN_FDS`). Whoever holds the value can hand the
    /// same one to the next program.
    #[must_use]
    pub fn socket(mut self, socket: Arc<TcpListener>) -> Self {
        self.socket = Some(socket);
        self
    }

    /// Starts the program of the debug build, also where released ones are tested: what a test drives in a program is in that alone.
    #[must_use]
    pub fn of_debug_build(mut self) -> Self {
        self.debug = true;
        self
    }

    /// Lets another program run it, which is given it as its last words, and gives it more time.
    #[must_use]
    pub fn under(mut self, words: impl IntoIterator<Item = OsString>) -> Self {
        self.under = words.into_iter().collect();
        self.patient(PATIENCE_UNDER)
    }

    /// Gives it so long to print an address, or to end.
    #[must_use]
    pub fn patient(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// The program was not built, or does not start.
    pub fn start(self) -> Result<Program> {
        std::fs::create_dir_all(&self.folder).context("making the program's folder")?;
        let (stdout, stderr) = self.output_files()?;
        let mut command = self.command()?;
        command.stdin(self.standard_input()?);
        command.stdout(File::create(&stdout).context("opening the output")?);
        command.stderr(File::create(&stderr).context("opening the output")?);
        let (name, patience) = (self.program, self.patience);
        Ok(Program { child: Child::spawn(command, &name)?, name, stdout, stderr, patience })
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// The program was not built, does not start, or does not end.
    pub fn output(self) -> Result<Output> {
        std::fs::create_dir_all(&self.folder).context("making the program's folder")?;
        let mut command = self.command()?;
        command.stdin(self.standard_input()?).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().with_context(|| format!("starting {}", self.program))?;
        let id = Pid::from_child(&child);
        let (sender, ended) = mpsc::channel();
        std::thread::spawn(move || sender.send(child.wait_with_output()));
        if let Ok(output) = ended.recv_timeout(COMMAND_PATIENCE) {
            return output.with_context(|| format!("running {}", self.program));
        }
        // Nobody has waited for it yet, so that the id is still its own.
        kill_process(id, Signal::KILL).with_context(|| format!("killing {}", self.program))?;
        let Output { stdout, stderr, .. } = ended.recv().context("its end")??;
        let said = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        bail!("{} did not end within {COMMAND_PATIENCE:?}: {said}", self.program)
    }

    fn standard_input(&self) -> Result<Stdio> {
        if let Some(socket) = &self.socket {
            return Ok(OwnedFd::from(socket.try_clone().context("the socket")?).into());
        }
        match &self.input {
            Some(file) => Ok(File::open(file).with_context(|| format!("opening {}", file.display()))?.into()),
            None => Ok(Stdio::null()),
        }
    }

    fn command(&self) -> Result<Command> {
        let mut words: Vec<OsString> = self.disk.iter().map(OsString::from).collect();
        if let Some((folder, mib)) = &self.small_disk {
            std::fs::create_dir_all(folder).context("making the folder of the small disk")?;
            let namespaces = if rustix::process::geteuid().is_root() { "-m" } else { "-rm" };
            let mut script = format!("mount -t tmpfs -o size={mib}m tmpfs \"$0\"");
            if self.fill {
                // The mount hides what the folder holds, but not from who stands in it already.
                script = format!("cd \"$0\" && {script} && cp -a . \"$0\" && cd \"$OLDPWD\"");
                script.push_str(" && { cat /dev/zero >\"$0/filler\" 2>/dev/null || :; }");
            }
            script.push_str(" && exec \"$@\"");
            words.extend(["unshare", namespaces, "sh", "-c", &script].map(OsString::from));
            words.push(folder.into());
        }
        if let Some(core) = self.core {
            words.extend(["taskset", "-c", &core.to_string()].map(OsString::from));
        }
        if self.socket.is_some() {
            // The process keeps its number through `exec`, and its first descriptor behind the usual ones is 3.
            let script = "export LISTEN_FDS=1 LISTEN_FDNAMES=gateway LISTEN_PID=$$; exec \"$@\" 3<&0 0</dev/null";
            words.extend(["sh", "-c", script, "sh"].map(OsString::from));
        }
        words.extend(self.under.iter().cloned());
        let path =
            if self.debug { in_folder(target_directory().join("debug"), &self.program) } else { built(&self.program) };
        words.push(path?.into());
        words.extend(self.arguments.iter().cloned());
        let mut words = words.into_iter();
        let mut command = Command::new(words.next().context("no program")?);
        command.args(words).current_dir(&self.folder).env_clear();
        for name in ["PATH", "HOME", "LLVM_PROFILE_FILE", "RUST_BACKTRACE"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.envs(&self.settings);
        Ok(command)
    }

    /// Files that no earlier start in this folder wrote: what came before a kill is worth reading too.
    fn output_files(&self) -> Result<(PathBuf, PathBuf)> {
        for start in 1..100_000 {
            let name = |kind| self.folder.join(format!("{}.{start}.{kind}", self.program));
            if !name("stdout").exists() {
                return Ok((name("stdout"), name("stderr")));
            }
        }
        bail!("too many starts in {}", self.folder.display())
    }
}

impl Program {
    /// The program's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the path by which this process reaches a file as the program sees it, its small disk included.
    pub fn path_seen(&self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.id()));
        root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Returns everything that it has printed on standard output so far.
    pub fn stdout(&self) -> String {
        std::fs::read_to_string(&self.stdout).unwrap_or_default()
    }

    /// Returns everything that it has printed on standard error (its logs) so far.
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(&self.stderr).unwrap_or_default()
    }

    /// Returns how many bytes it has printed on standard error so far.
    pub fn logged(&self) -> u64 {
        std::fs::metadata(&self.stderr).map_or(0, |file| file.len())
    }

    /// Returns what it has printed on standard error behind so many bytes.
    ///
    /// # Errors
    /// The file of it can't be read.
    pub fn logged_since(&self, bytes: u64) -> Result<String> {
        let mut file = File::open(&self.stderr).context("the log")?;
        file.seek(SeekFrom::Start(bytes)).context("the log")?;
        let mut logged = Vec::new();
        file.read_to_end(&mut logged).context("the log")?;
        Ok(String::from_utf8_lossy(&logged).into_owned())
    }

    /// Both, for an error message.
    pub fn output(&self) -> String {
        format!("--- {} printed:\n{}{}", self.name, self.stdout(), self.stderr())
    }

    /// Waits until what it printed (standard output, then logs) holds what `find` looks for.
    ///
    /// # Errors
    /// It ended, or did not print it in time; the error holds what it did print.
    pub async fn printed<T>(&mut self, what: &str, find: impl Fn(&str) -> Option<T>) -> Result<T> {
        let deadline = std::time::Instant::now() + self.patience;
        loop {
            let ended = self.child.ended()?;
            if let Some(found) = find(&format!("{}{}", self.stdout(), self.stderr())) {
                return Ok(found);
            }
            if let Some(status) = ended {
                bail!("{} ended with {status} before it printed {what}\n{}", self.name, self.output());
            }
            ensure!(std::time::Instant::now() < deadline, "{} did not print {what}\n{}", self.name, self.output());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits for the first address that was printed behind the words `listener`, on the same line.
    ///
    /// # Errors
    /// As [`Self::printed`].
    pub async fn address(&mut self, listener: &str) -> Result<SocketAddr> {
        self.printed(&format!("the address of {listener}"), |text| {
            text.lines().filter_map(|line| line.split_once(listener)).find_map(|(_, rest)| address_in(rest))
        })
        .await
    }

    /// `kill -9`, and waits until the process is gone.
    ///
    /// # Errors
    /// It can't be waited for.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().map(drop)
    }

    /// Sends a signal: `Signal::INT` is Ctrl-C, `Signal::TERM` what a service manager sends.
    ///
    /// # Errors
    /// It has ended already.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        self.child.signal(signal).with_context(|| self.output())
    }

    /// Returns whether it has not ended.
    ///
    /// # Errors
    /// It can't be waited for.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.child.ended()?.is_none())
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It does not end.
    pub async fn wait(&mut self) -> Result<ExitStatus> {
        self.child.wait(self.patience).await.with_context(|| self.output())
    }
}

/// Where a program of ours was built: `GOLDLEAVES_BIN_DIR`, else beside the running test.
///
/// # Errors
/// It was not built.
pub fn built(program: &str) -> Result<PathBuf> {
    let beside_test = || {
        let test = std::env::current_exe().ok()?;
        let deps = test.parent()?;
        let folder = if deps.ends_with("deps") { deps.parent()? } else { deps };
        Some(folder.to_path_buf())
    };
    let folder = std::env::var_os(GOLDLEAVES_BIN_DIR).map(PathBuf::from).or_else(beside_test);
    in_folder(folder.unwrap_or_else(|| target_directory().join("debug")), program)
}

fn in_folder(folder: PathBuf, program: &str) -> Result<PathBuf> {
    let path = folder.join(program);
    ensure!(
        path.is_file(),
        "{} was not built: run `cargo build --workspace --bins`, or `cargo xtask test`, which does",
        path.display()
    );
    Ok(path)
}

/// The first `127.0.0.1:PORT` or `[::1]:PORT` in a line.
fn address_in(line: &str) -> Option<SocketAddr> {
    let words = line.split(|c: char| c.is_whitespace() || "/,;\"'`()<>=".contains(c));
    words.filter_map(|word| word.parse::<SocketAddr>().ok()).find(|address| address.port() != 0)
}

#[cfg(test)]
mod tests {
    use super::address_in;

    #[test]
    fn addresses_are_read_from_what_people_read() {
        assert_eq!(address_in("gateway  http://127.0.0.1:8080/x"), Some("127.0.0.1:8080".parse().unwrap()));
        assert_eq!(address_in("address=\"0.0.0.0:91\""), Some("0.0.0.0:91".parse().unwrap()));
        assert_eq!(address_in("127.0.0.1:0 then 127.0.0.1:4,"), Some("127.0.0.1:4".parse().unwrap()));
        assert_eq!(address_in("no address"), None);
    }
}
