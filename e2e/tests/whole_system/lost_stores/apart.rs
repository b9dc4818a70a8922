//! The distributed deployment: nats-server and PostgreSQL lose what they had, the wires to them lose what is on them.

use std::time::{Duration, Instant};

use goldleaves_e2e::account::Unbilled;
use goldleaves_e2e::fleet::Fleet;
use goldleaves_e2e::load::SteadyLoad;
use goldleaves_e2e::tables::Tables;
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::nats::NatsServer;
use goldleaves_testkit::postgres::Postgres;
use goldleaves_testkit::proxy::WireProxy;
use goldleaves_testkit::upstream::Upstream;
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Course, DURABILITY, Durability, Logs, RECOVERY, Read, Tally, UNRECORDED, calls, judge, request, seeded};
use crate::chaos::{answer, unbilled};
use crate::soak;
use crate::used_stream::{TENANTS, assert_same, bills, meaning, output};

/// The copies of a store that are kept to be put back.
const COPIES: usize = 3;
const BYTES_MAX: u64 = 4 << 30;
/// Room for what the servers write: a stream that went back holds all that was handed over once more, again and again.
const NATS_DISK_MIB: u32 = 2_048;
const POSTGRES_DISK_MIB: u32 = 1_536;
const CONNECTS: &str = "goldleaves_nats_connects_total";
const UNCONFIRMED: &str = "goldleaves_relay_batches_total{result=\"retried\"}";
const REWOUND: &str = "goldleaves_relay_batches_total{result=\"rewound\"}";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// The stream's files are what they were.
    StreamBack,
    /// The same, and the gateway dies with the server.
    PowerCut,
    StreamDeleted,
    StreamWiped,
    ConsumerDeleted,
    /// The database's files are what they were.
    LedgerBack,
    /// A standby that was behind takes over.
    FailedOver,
    StreamFull,
    /// The disk of nats-server is full.
    NatsDiskFull,
    /// The disk of PostgreSQL is full.
    PostgresDiskFull,
    /// The open connections are swallowed, new ones work.
    Forgotten(Wire),
    /// Everything is swallowed for a while.
    Silent(Wire),
    NatsAway,
    PostgresAway,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    GatewayNats,
    WorkerNats,
    WorkerPostgres,
}

const LOSSES: [Loss; 18] = [
    Loss::StreamBack,
    Loss::LedgerBack,
    Loss::FailedOver,
    Loss::StreamFull,
    Loss::NatsDiskFull,
    Loss::PostgresDiskFull,
    Loss::Forgotten(Wire::WorkerPostgres),
    Loss::PowerCut,
    Loss::StreamDeleted,
    Loss::StreamWiped,
    Loss::ConsumerDeleted,
    Loss::Forgotten(Wire::GatewayNats),
    Loss::Forgotten(Wire::WorkerNats),
    Loss::Silent(Wire::GatewayNats),
    Loss::Silent(Wire::WorkerNats),
    Loss::Silent(Wire::WorkerPostgres),
    Loss::NatsAway,
    Loss::PostgresAway,
];

/// The losses that do not take half a minute: two of them make a run of seconds.
const QUICK: [Loss; 3] = [Loss::PowerCut, Loss::LedgerBack, Loss::FailedOver];

struct Run {
    fleet: Fleet,
    load: SteadyLoad,
    random: StdRng,
    tally: Tally,
    streams: Vec<TempDir>,
    ledgers: Vec<TempDir>,
    said: Unbilled,
    resent: usize,
    durability: Durability,
}

impl Run {
    fn wire(&self, wire: Wire) -> &WireProxy {
        match wire {
            Wire::GatewayNats => &self.fleet.wires.gateway_nats,
            Wire::WorkerNats => &self.fleet.wires.worker_nats,
            Wire::WorkerPostgres => &self.fleet.wires.worker_postgres,
        }
    }

    /// Waits until everything is handed over and recorded. A person who is told that the stream lacks something hands it
    /// over again.
    async fn calm(&mut self, logs: &Logs) {
        self.fleet.relayed(RECOVERY).await.unwrap();
        self.fleet.recorded(RECOVERY).await.unwrap();
        let lacking = async || {
            let lacking = self.fleet.of_workers("goldleaves_ledger_lacking_messages").await?;
            Ok(lacking.iter().all(|lacking| *lacking == 0.0).then_some(()))
        };
        wait_for("the ledger to have everything", RECOVERY, lacking).await.unwrap();
        if logs.say(&["the stream no longer holds messages that the ledger lacks"]) {
            println!("  {}", output(self.resend()).trim());
            self.resent += 1;
        }
    }

    fn resend(&self) -> goldleaves_testkit::program::Launch {
        self.fleet.program("goldleaves").argument("spool").argument("resend")
    }

    /// Copies a store now and then, and has calls go by that the copy lacks.
    async fn copy(&mut self, wanted: Option<Loss>) {
        if wanted == Some(Loss::StreamBack) || self.random.random_bool(0.4) {
            self.streams.push(self.fleet.server(0).unwrap().copy_at_this_moment().unwrap());
        }
        if wanted == Some(Loss::LedgerBack) || self.random.random_bool(0.4) {
            self.ledgers.push(self.fleet.postgres.copy_at_this_moment().unwrap());
        }
        for copies in [&mut self.streams, &mut self.ledgers] {
            let extra = copies.len().saturating_sub(COPIES);
            copies.drain(..extra);
        }
        calls(&self.load, 30).await;
    }

    async fn restore_stream(&mut self) {
        let copy = self.random.random_range(0..self.streams.len());
        let server = self.fleet.server(0).unwrap();
        server.kill().await.unwrap();
        server.restore(&self.streams[copy]).unwrap();
    }

    async fn restart_nats(&mut self) {
        self.fleet.server(0).unwrap().restart().await.unwrap();
    }

    async fn start_gateway(&mut self) {
        self.durability = Durability::any(&mut self.random);
        self.fleet.set(DURABILITY, self.durability.setting());
        self.fleet.start_gateway().await.unwrap();
    }

    /// Makes it happen; it ends by itself, or with [`Self::mend`].
    async fn inflict(&mut self, loss: Loss) {
        match loss {
            Loss::StreamBack => {
                self.restore_stream().await;
                self.restart_nats().await;
            }
            Loss::PowerCut => {
                self.said += last_words(&self.fleet, self.durability).await;
                self.fleet.kill_gateway().unwrap();
                self.restore_stream().await;
                self.restart_nats().await;
                self.start_gateway().await;
            }
            Loss::StreamDeleted => self.ask("$JS.API.STREAM.DELETE.USAGE", &Value::Null).await,
            Loss::ConsumerDeleted => self.ask("$JS.API.CONSUMER.DELETE.USAGE.meter", &Value::Null).await,
            Loss::StreamWiped => {
                let server = self.fleet.server(0).unwrap();
                server.kill().await.unwrap();
                server.wipe().unwrap();
                self.restart_nats().await;
            }
            Loss::LedgerBack => {
                let copy = self.random.random_range(0..self.ledgers.len());
                self.fleet.postgres.kill().unwrap();
                self.fleet.postgres.restore(&self.ledgers[copy]).unwrap();
                self.fleet.postgres.restart().await.unwrap();
            }
            Loss::FailedOver => self.fail_over().await,
            Loss::StreamFull => {
                self.wire(Wire::WorkerPostgres).stall();
                let bytes = self.stream().await["state"]["bytes"].as_u64().unwrap();
                self.limit_stream(bytes + 20_000).await;
            }
            Loss::NatsDiskFull => self.fleet.server(0).unwrap().disk().unwrap().fill().unwrap(),
            Loss::PostgresDiskFull => self.fleet.postgres.disk().unwrap().fill().unwrap(),
            Loss::Forgotten(wire) => self.wire(wire).forget(),
            Loss::Silent(wire) => self.wire(wire).stall(),
            Loss::NatsAway => self.fleet.server(0).unwrap().kill().await.unwrap(),
            Loss::PostgresAway => self.fleet.postgres.kill().unwrap(),
        }
    }

    /// Ends what somebody's hand has to end.
    async fn mend(&mut self, loss: Loss) {
        match loss {
            Loss::StreamFull => {
                self.wire(Wire::WorkerPostgres).mend();
                // What is billed makes room for what waits.
                self.fleet.relayed(RECOVERY).await.unwrap();
                self.limit_stream(BYTES_MAX).await;
            }
            Loss::NatsDiskFull => {
                self.fleet.server(0).unwrap().disk().unwrap().make_room().unwrap();
                // A nats-server that could not write does so again after a start only.
                self.restart_nats().await;
            }
            Loss::PostgresDiskFull => {
                self.fleet.postgres.disk().unwrap().make_room().unwrap();
                self.fleet.postgres.revive().await.unwrap();
            }
            Loss::Silent(wire) => self.wire(wire).mend(),
            Loss::NatsAway => self.restart_nats().await,
            Loss::PostgresAway => self.fleet.postgres.restart().await.unwrap(),
            _ => {}
        }
    }

    async fn fail_over(&mut self) {
        let port = self.fleet.postgres.port();
        let receiving = WireProxy::start(&format!("127.0.0.1:{port}")).await.unwrap();
        let standby = self.fleet.postgres.standby(receiving.address().port()).await.unwrap();
        calls(&self.load, 10).await;
        receiving.stall();
        calls(&self.load, 30).await;
        self.fleet.recorded(RECOVERY).await.unwrap();
        self.fleet.postgres.kill().unwrap();
        standby.promote().await.unwrap();
        self.fleet.fail_over(standby);
    }

    async fn ask(&self, subject: &str, payload: &Value) {
        let answer = self.fleet.ask_nats(subject, payload).await.unwrap();
        assert!(answer.get("error").is_none(), "{subject}: {answer}");
    }

    async fn stream(&self) -> Value {
        self.fleet.ask_nats("$JS.API.STREAM.INFO.USAGE", &Value::Null).await.unwrap()
    }

    async fn limit_stream(&self, bytes: u64) {
        let mut config = self.stream().await["config"].clone();
        config["max_bytes"] = json!(bytes);
        self.ask("$JS.API.STREAM.UPDATE.USAGE", &config).await;
    }

    /// Waits until it is named.
    async fn named(&mut self, loss: Loss, logs: &Logs, before: Counts) {
        let fleet = &self.fleet;
        let rewound = async || Ok(fleet.count(REWOUND).await? > before.rewound);
        let went_back = async || Ok(workers(fleet, "goldleaves_ledger_went_back_total").await? > before.went_back);
        let failing = async || Ok(workers(fleet, "goldleaves_meter_failures_total").await? > before.failures);
        let unready = async || Ok(workers(fleet, "goldleaves_ready").await? < fleet.workers() as f64);
        let cut_off = async || Ok(fleet.count("goldleaves_nats_connected").await? == 0);
        let reconnected = async || Ok(fleet.count(CONNECTS).await? > before.connects);
        let connected_again = async || Ok(workers(fleet, CONNECTS).await? > before.worker_connects);
        let full = async || {
            let bytes = workers(fleet, "goldleaves_stream_bytes").await?;
            Ok(bytes > 0.9 * workers(fleet, "goldleaves_stream_bytes_max").await?)
        };
        let unconfirmed = async || Ok(fleet.count(UNCONFIRMED).await? > before.unconfirmed);
        let made = async || Ok(workers(fleet, "goldleaves_consumers_made_total").await? > before.made);
        let name = format!("{loss:?}");
        let tally = &mut self.tally;
        match loss {
            Loss::StreamBack | Loss::PowerCut => {
                tally.named(&name, logs, &["the receiver lost what it had confirmed"], rewound).await;
            }
            Loss::StreamDeleted | Loss::StreamWiped => {
                tally.named(&name, logs, &["the stream USAGE was gone"], rewound).await;
            }
            Loss::ConsumerDeleted => {
                tally.named(&name, logs, &["the consumer of the workers was gone"], made).await;
            }
            Loss::LedgerBack | Loss::FailedOver => {
                tally.named(&name, logs, &["the ledger went back"], went_back).await;
            }
            Loss::StreamFull => {
                tally.named(&name, logs, &["until the stream has room", "the stream is filling"], full).await;
            }
            Loss::Forgotten(Wire::WorkerPostgres)
            | Loss::Silent(Wire::WorkerPostgres)
            | Loss::PostgresAway
            | Loss::PostgresDiskFull => {
                tally.named(&name, logs, &["is in doubt", "the ledger can't record", "is away"], failing).await;
            }
            Loss::NatsDiskFull => {
                tally.named(&name, logs, &["no receipt, the same batch is handed over again"], unconfirmed).await;
            }
            Loss::Forgotten(Wire::GatewayNats) => {
                tally.named(&name, logs, &["the connection to NATS is lost"], reconnected).await;
            }
            Loss::Silent(Wire::GatewayNats) => {
                tally.named(&name, logs, &["the connection to NATS is lost"], cut_off).await;
            }
            Loss::Forgotten(Wire::WorkerNats) => {
                tally.named(&name, logs, &["the connection to NATS is lost"], connected_again).await;
            }
            Loss::NatsAway | Loss::Silent(Wire::WorkerNats) => {
                tally.named(&name, logs, &["the connection to NATS is lost"], unready).await;
            }
        }
    }

    async fn counts(&self) -> Counts {
        let of = async |name| workers(&self.fleet, name).await.unwrap();
        Counts {
            rewound: self.fleet.count(REWOUND).await.unwrap(),
            unconfirmed: self.fleet.count(UNCONFIRMED).await.unwrap(),
            connects: self.fleet.count(CONNECTS).await.unwrap(),
            worker_connects: of(CONNECTS).await,
            went_back: of("goldleaves_ledger_went_back_total").await,
            failures: of("goldleaves_meter_failures_total").await,
            made: of("goldleaves_consumers_made_total").await,
        }
    }

    /// One loss, from calm to calm.
    async fn lose(&mut self, loss: Loss) {
        let logs = Logs::from_now(self.fleet.folder());
        let needs = match loss {
            Loss::StreamBack | Loss::PowerCut if self.streams.is_empty() => Some(Loss::StreamBack),
            Loss::LedgerBack if self.ledgers.is_empty() => Some(Loss::LedgerBack),
            _ => None,
        };
        self.copy(needs).await;
        self.calm(&logs).await;
        let logs = Logs::from_now(self.fleet.folder());
        let mut before = self.counts().await;
        if loss == Loss::PowerCut {
            before.rewound = 0;
        }
        self.inflict(loss).await;
        self.named(loss, &logs, before).await;
        // Now and then another one meets what is not mended yet.
        let second = *LOSSES.choose(&mut self.random).unwrap();
        let both = soak() && self.random.random_bool(0.25) && self.may_follow(loss, second);
        if both {
            self.tally.unasked(&format!("{second:?}"));
            self.inflict(second).await;
        }
        let lasts = Duration::from_millis(self.random.random_range(0..if soak() { 15_000 } else { 500 }));
        tokio::time::sleep(lasts).await;
        self.mend(loss).await;
        if both {
            self.mend(second).await;
        }
        self.calm(&logs).await;
        if soak() {
            let workers = self.random.random_range(1..4);
            self.fleet.scale(workers).await.unwrap();
        }
    }

    /// Says whether the second can be inflicted while the first lasts.
    fn may_follow(&self, first: Loss, second: Loss) -> bool {
        let is_nats_gone = matches!(
            first,
            Loss::NatsAway | Loss::StreamDeleted | Loss::StreamWiped | Loss::ConsumerDeleted | Loss::StreamFull
        );
        let needs_nats = matches!(second, Loss::StreamDeleted | Loss::ConsumerDeleted | Loss::StreamFull);
        let needs_postgres = matches!(second, Loss::FailedOver | Loss::LedgerBack | Loss::PostgresAway);
        let is_postgres_gone = matches!(first, Loss::PostgresAway | Loss::Silent(_) | Loss::StreamFull);
        let lacks_copy = (matches!(second, Loss::StreamBack | Loss::PowerCut) && self.streams.is_empty())
            || (second == Loss::LedgerBack && self.ledgers.is_empty());
        let is_disk_full = |loss| matches!(loss, Loss::NatsDiskFull | Loss::PostgresDiskFull);
        // A failover waits for what is recorded, a full stream is full while nothing is, and nothing is put back to a full disk.
        !(lacks_copy
            || is_disk_full(first)
            || is_disk_full(second)
            || second == Loss::FailedOver
            || (is_nats_gone && (needs_nats || second == Loss::NatsAway))
            || (is_postgres_gone && needs_postgres))
    }
}

/// The counts of the programs before a loss.
#[derive(Debug, Clone, Copy)]
struct Counts {
    rewound: u64,
    unconfirmed: u64,
    connects: u64,
    worker_connects: f64,
    went_back: f64,
    failures: f64,
    made: f64,
}

async fn workers(fleet: &Fleet, name: &str) -> anyhow::Result<f64> {
    Ok(fleet.of_workers(name).await?.iter().sum())
}

/// The numbers of a gateway before it ends.
async fn last_words(fleet: &Fleet, durability: Durability) -> Unbilled {
    durability.allows(fleet.count(UNRECORDED).await.unwrap());
    unbilled(fleet).await
}

/// A ledger made anew, from a stream that was lost, is the same to the cent.
async fn rebuild(fleet: &mut Fleet) {
    let cards = fleet.folder().join("rate-cards");
    std::fs::write(&cards, output(fleet.program("goldleaves").argument("rate-cards").argument("export"))).unwrap();
    let server = fleet.server(0).unwrap();
    server.kill().await.unwrap();
    server.wipe().unwrap();
    server.restart().await.unwrap();
    fleet.start_gateway().await.unwrap();
    let rewound = async || Ok((fleet.count(REWOUND).await? > 0).then_some(()));
    wait_for("the stream to be made again", RECOVERY, rewound).await.unwrap();
    fleet.relayed(RECOVERY).await.unwrap();
    assert_eq!(fleet.stop_gateway().await.unwrap().code(), Some(0));
    fleet.recorded(RECOVERY).await.unwrap();

    let database = fleet.postgres.empty_database().await.unwrap();
    let there = |program: &str| fleet.program(program).setting("DATABASE_URL", &database);
    output(there("migrate"));
    output(there("goldleaves").argument("rate-cards").argument("import").input(&cards));
    println!("{}", output(there("goldleaves").argument("replay").argument("--from").argument("first")));
    let (old, new) = (fleet.tables().await.unwrap(), Tables::open(&database).await.unwrap());
    assert_same(&meaning(&new).await, &meaning(&old).await);
    assert_eq!(bills(fleet, &database).await, bills(fleet, fleet.database()).await);
}

/// Servers on disks of their own where these are to be full: that takes the right to mount.
async fn fleet(upstream: &Upstream, durability: Durability) -> Fleet {
    let (nats, postgres) = if soak() {
        (NatsServer::start_on_disk(NATS_DISK_MIB).await, Postgres::start_on_disk(POSTGRES_DISK_MIB).await)
    } else {
        (NatsServer::start().await, Postgres::start().await)
    };
    let settings = [(DURABILITY, durability.setting())];
    Fleet::start_over(vec![nats.unwrap()], postgres.unwrap(), &upstream.url(), &settings).await.unwrap()
}

async fn started(upstream: &Upstream, course: Course) -> Run {
    let mut random = seeded("distributed");
    let durability = Durability::any(&mut random);
    let fleet = fleet(upstream, durability).await;
    let tokens = TENANTS.map(|tenant| fleet.token(tenant).unwrap());
    let load = SteadyLoad::start(fleet.address(), course.plan(), move |number| request(&tokens, number));
    let (tally, said) = (Tally::default(), Unbilled::default());
    Run { fleet, load, random, tally, streams: Vec::new(), ledgers: Vec::new(), said, resent: 0, durability }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stores_of_the_programs_are_lost_and_nothing_is() {
    let course = Course::of_environment();
    let upstream = Upstream::start_keeping_ids(answer).await.unwrap();
    let mut run = started(&upstream, course).await;
    let mut losses = if soak() { LOSSES.to_vec() } else { QUICK.to_vec() };
    losses.shuffle(&mut run.random);
    losses.truncate(if soak() { LOSSES.len() } else { 2 });
    let start = Instant::now();
    while !losses.is_empty()
        || (soak() && (start.elapsed() < course.lasts || run.load.finished() < course.calls as u64))
    {
        let loss = losses.pop().unwrap_or_else(|| *LOSSES.choose(&mut run.random).unwrap());
        println!("{:.0?}, {} calls: {loss:?}", start.elapsed(), run.load.finished());
        run.lose(loss).await;
    }
    let logs = Logs::from_now(run.fleet.folder());
    run.calm(&logs).await;
    let Run { mut fleet, load, tally, mut said, resent, durability, .. } = run;
    let asked = load.stop().await.unwrap();
    fleet.relayed(RECOVERY).await.unwrap();
    said += last_words(&fleet, durability).await;
    assert_eq!(fleet.stop_gateway().await.unwrap().code(), Some(0));
    fleet.recorded(RECOVERY).await.unwrap();
    println!("{:.0?}, handed over again by hand {resent} times", start.elapsed());
    tally.print();
    let tables = fleet.tables().await.unwrap();
    said.unrecorded = tables.unrecorded().await.unwrap();
    let wrong = judge(&tables.contents().await.unwrap(), &Read::of(&asked, &[]), &upstream, said);
    let disagreements = tables.disagreements().await.unwrap();
    rebuild(&mut fleet).await;
    assert_eq!(wrong, Vec::<String>::new());
    assert_eq!(disagreements, Vec::<String>::new(), "what was sealed is what was received");
    fleet.scale(0).await.unwrap();
}
