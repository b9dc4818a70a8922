//! Things in the place of a file that settings are read from: whatever it is, the programs go on serving, say what it is,
//! and take the next good file.

use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use goldleaves_e2e::deployment::{Deployment, Kind, PATIENCE};
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::scratch::Scratch;
use goldleaves_testkit::secure::{Authority, Validity};
use goldleaves_testkit::upstream::{Answer, Upstream};
use rustix::process::Signal;

use super::{PATH, World, answer, echoing, settings};

on_both!(
    what_is_no_file_is_refused_and_the_next_good_file_is_taken,
    a_secret_that_is_no_file_is_waited_out,
    a_change_within_the_same_second_is_taken,
    an_upstream_is_verified_against_the_authority_that_stands_there,
);

/// Puts something else in the place of a file.
fn replace(file: &Path, make: impl FnOnce(&Path)) {
    if std::fs::symlink_metadata(file).is_ok_and(|found| found.is_dir()) {
        std::fs::remove_dir(file).unwrap();
    } else {
        std::fs::remove_file(file).unwrap();
    }
    make(file);
}

pub(crate) fn pipe(path: &Path) {
    assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
}

type Make = fn(&Path);

/// The things that are no file of settings, and what is said of each.
const NO_FILES: [(Make, &str); 4] = [
    (pipe, "it is a pipe and no regular file"),
    (|path| symlink("/dev/zero", path).unwrap(), "it is a device and no regular file"),
    (|path| std::fs::create_dir(path).unwrap(), "it is a folder and no regular file"),
    (|path| std::fs::write(path, vec![b'#'; (16 << 20) + 1]).unwrap(), "it holds more than 16 MiB"),
];

impl World {
    async fn said_so(&mut self, before: u64, what: &str) {
        let said = wait_for(what, PATIENCE, async || Ok(self.said_since(before).contains(what).then_some(())));
        said.await.unwrap_or_else(|_| panic!("{what} is not in\n{}", self.said_since(before)));
    }

    async fn is_at(&self, target: &str) {
        let request = Request::get(&format!("{PATH}/x")).token(&self.deployment.token("acme").unwrap());
        let found = wait_for(target, PATIENCE, async || {
            Ok((self.deployment.ask(&request).await?.text() == target).then_some(()))
        });
        found.await.unwrap();
    }
}

async fn what_is_no_file_is_refused_and_the_next_good_file_is_taken(kind: Kind) {
    let (upstream, tunnels) = (Upstream::start(answer).await.unwrap(), echoing().await);
    let mut world = World::start(kind, &settings(1, &upstream, tunnels), &[]).await;
    for (make, why) in NO_FILES {
        replace(&world.file, make);
        let before = world.said();
        assert!(!world.read_again().await, "{why}");
        world.said_so(before, why).await;
        assert!(world.said_since(before).contains("CONFIG_FILE: "), "{}", world.said_since(before));
        assert_eq!(world.deployment.metric("goldleaves_config_stale").await.unwrap(), 1.0);
        world.is_at("/g1/x").await;
    }
    // The same, seen by the watch.
    let watching = |number| settings(number, &upstream, tunnels) + "[config]\nwatch_secs = 0.2\n";
    let write = |path: &Path, number| std::fs::write(path, watching(number)).unwrap();
    replace(&world.file, |path| write(path, 2));
    assert!(world.read_again().await);
    for (number, (make, why)) in (3..).zip(NO_FILES) {
        let before = world.said();
        replace(&world.file, make);
        world.said_so(before, why).await;
        replace(&world.file, |path| write(path, number));
        world.is_at(&format!("/g{number}/x")).await;
        wait_for("the end of it", PATIENCE, async || {
            Ok((world.deployment.metric("goldleaves_config_stale").await? == 0.0).then_some(()))
        })
        .await
        .unwrap();
    }
}

async fn a_secret_that_is_no_file_is_waited_out(kind: Kind) {
    let (upstream, tunnels) = (Upstream::start(answer).await.unwrap(), echoing().await);
    let (mut world, secret) = World::with_secret_file(kind, &settings(1, &upstream, tunnels)).await;
    let before = world.said();
    replace(&secret, pipe);
    world.said_so(before, "JWT_SECRET_FILE: ").await;
    world.said_so(before, "it is a pipe").await;
    world.is_at("/g1/x").await;
    let (new_secret, token) = super::other_secret();
    replace(&secret, |path| std::fs::write(path, &new_secret).unwrap());
    let request = Request::get(&format!("{PATH}/x")).token(&token);
    wait_for("the new secret", PATIENCE, async || {
        Ok((world.deployment.ask(&request).await?.status == 200).then_some(()))
    })
    .await
    .unwrap();
}

async fn a_change_within_the_same_second_is_taken(kind: Kind) {
    let (upstream, tunnels) = (Upstream::start(answer).await.unwrap(), echoing().await);
    let watching = |number| settings(number, &upstream, tunnels) + "[config]\nwatch_secs = 0.2\n";
    let world = World::start(kind, &watching(1), &[]).await;
    // The same file, as long as before, of another tenth of one second.
    let second = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    for number in 2..6 {
        let mut file = std::fs::File::create(&world.file).unwrap();
        file.write_all(watching(number).as_bytes()).unwrap();
        file.set_modified(second + Duration::from_millis(100) * number).unwrap();
        drop(file);
        world.is_at(&format!("/g{number}/x")).await;
    }
}

async fn an_upstream_is_verified_against_the_authority_that_stands_there(kind: Kind) {
    let [one, other] = [Authority::new().unwrap(), Authority::new().unwrap()];
    let identity = one.sign("docs", &["localhost"], Validity::Good).unwrap();
    let tls = Authority::server(&identity, &["http/1.1"], None).unwrap();
    let upstream = Upstream::start_secure(tls, |_| Answer::ok("over TLS")).await.unwrap();
    let folder = Scratch::new("authority-file").unwrap();
    let trusted = folder.join("ca.pem");
    std::fs::copy(one.file(), &trusted).unwrap();
    let text = format!(
        "[[upstreams]]\nname = \"docs\"\naddresses = [\"https://localhost:{}\"]\nca_file = \"{}\"\n\
         [[routes]]\npath = \"{PATH}\"\nupstream = \"docs\"\n",
        upstream.address().port(),
        trusted.display()
    );
    let mut world = World::start(kind, &text, &[]).await;
    let request = Request::get(PATH).token(&world.deployment.token("acme").unwrap());
    let is_answered = async |world: &World, status: u16| {
        wait_for("the answer", PATIENCE, async || {
            Ok((world.deployment.ask(&request).await?.status == status).then_some(()))
        })
        .await
        .unwrap_or_else(|_| panic!("{status} is never answered"));
    };
    is_answered(&world, 200).await;
    // Nobody says so: the file is looked at.
    std::fs::copy(other.file(), &trusted).unwrap();
    is_answered(&world, 502).await;
    std::fs::copy(one.file(), &trusted).unwrap();
    is_answered(&world, 200).await;
    // A signal is quicker, and half a file is refused: what was there stays.
    let whole = std::fs::read(one.file()).unwrap();
    std::fs::write(&trusted, &whole[..whole.len() / 2]).unwrap();
    let before = world.said();
    assert!(!world.read_again().await);
    world.said_so(before, "upstreams[0].ca_file: can't be used: ").await;
    is_answered(&world, 200).await;
    std::fs::copy(other.file(), &trusted).unwrap();
    assert!(world.read_again().await);
    assert_eq!(world.deployment.ask(&request).await.unwrap().status, 502, "the connections of before are not used");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_came_through_a_pipe_stay() {
    let (upstream, tunnels) = (Upstream::start(answer).await.unwrap(), echoing().await);
    let deployment = Deployment::prepare(Kind::Embedded, &[]).unwrap();
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(settings(1, &upstream, tunnels).as_bytes()).unwrap();
    drop(writer);
    let launch = deployment.launch().argument("--config").argument("/dev/stdin");
    let input = PathBuf::from(format!("/proc/self/fd/{}", reader.as_raw_fd()));
    let mut program = launch.input(&input).start().unwrap();
    let gateway = program.address("gateway listens on").await.unwrap();
    let request = Request::get(&format!("{PATH}/x")).token(&deployment.token("acme").unwrap());
    assert_eq!(request.send(gateway).await.unwrap().text(), "/g1/x");
    program.signal(Signal::HUP).unwrap();
    let refused = "--config: \"/dev/stdin\" cannot be read: it is a pipe, which is read once, at the start: there is nothing to read again";
    let plain = |text: &str| text.replace('\\', "").contains(refused).then_some(());
    program.printed("that there is nothing to read again", plain).await.unwrap();
    assert_eq!(request.send(gateway).await.unwrap().text(), "/g1/x");
}
