//! Days of usage pushed by two built programs that are killed at random, through faults of every kind, by a clock that the test
//! drives and that jumps: what Stripe has in the end is what the ledger has, to the unit.
//!
//! The long form (`GOLDLEAVES_SOAK`) goes through 100 days, or as many as `SIMULATED_DAYS` says; `SEED` repeats a course, as
//! far as programs that run beside each other can. The programs are those of the debug build: released ones know no clock but
//! the database's.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use goldleaves_e2e::deployment::SECRET;
use goldleaves_e2e::tables::Tables;
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::postgres::Postgres;
use goldleaves_testkit::program::{Launch, Program};
use goldleaves_testkit::scratch::Scratch;
use goldleaves_testkit::stripe::{Faults, StripeDouble};
use goldleaves_testkit::token::Claims;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use sea_orm::{ConnectionTrait as _, Database, DatabaseConnection, TransactionTrait as _};
use serde_json::{Value, json};

const METER: &str = "goldleaves_units";
const MINUTE: i64 = 60;
const HOUR: i64 = 3_600;
const DAYS: i64 = 3;
const DAYS_OF_SOAK: i64 = 100;
const PATIENCE: Duration = Duration::from_secs(120);
/// How long programs may work before the clock goes on, if there is so much to do.
const WORK: Duration = Duration::from_millis(200);
/// Longer than a call may take.
const CALL: Duration = Duration::from_secs(25);
const TENANTS: i64 = 3;
/// 2026-03-01, in seconds.
const START: i64 = 1_772_323_200;
/// The lock that whoever takes lanes holds for a moment.
const LANES_LOCK: i64 = 0x474c_0006_0000_0000;

/// The clock of the double and, by a file, of the programs.
#[derive(Clone)]
struct Clock {
    seconds: Arc<AtomicI64>,
    file: Arc<PathBuf>,
}

impl Clock {
    fn at(seconds: i64, folder: &Path) -> Self {
        let clock = Self { seconds: Arc::new(AtomicI64::new(0)), file: Arc::new(folder.join("clock")) };
        clock.set(seconds);
        clock
    }

    fn set(&self, seconds: i64) {
        let new = self.file.with_extension("new");
        std::fs::write(&new, seconds.to_string()).unwrap();
        std::fs::rename(&new, self.file.as_path()).unwrap();
        self.seconds.store(seconds, Ordering::SeqCst);
    }

    fn now(&self) -> i64 {
        self.seconds.load(Ordering::SeqCst)
    }
}

/// The outcome of a course, for whoever reads the output.
#[derive(Debug, Default)]
struct Course {
    steps: u64,
    kills: u64,
    jumps: u64,
    used: i64,
}

struct World {
    settings: BTreeMap<&'static str, String>,
    programs: Vec<Program>,
    address: SocketAddr,
    double: StripeDouble,
    clock: Clock,
    raw: DatabaseConnection,
    tables: Tables,
    course: Course,
    scratch: Scratch,
}

impl World {
    async fn start() -> Self {
        let scratch = Scratch::new("stripe-days").unwrap();
        let clock = Clock::at(START, scratch.path());
        let shared = clock.clone();
        let double = StripeDouble::start_at(move || shared.now()).await.unwrap();
        double.add_meter("mtr_1", METER);
        (0..TENANTS).for_each(|number| double.add_customer(&format!("cus_{number}")));
        let url = Postgres::shared().await.unwrap().empty_database().await.unwrap();
        let settings = BTreeMap::from([
            ("DATABASE_URL", url.clone()),
            ("JWT_SECRET", SECRET.to_owned()),
            ("BILLING_ADDR", "127.0.0.1:0".to_owned()),
            ("OPS_ADDR", "127.0.0.1:0".to_owned()),
            ("STRIPE_API_BASE", double.url()),
            ("STRIPE_API_KEY", "rk_test_double".to_owned()),
            ("GOLDLEAVES_TEST_CLOCK", clock.file.display().to_string()),
        ]);
        let database = [("DATABASE_URL", url.clone())];
        let migrated = Launch::new("migrate", scratch.path()).of_debug_build().settings(database).output().unwrap();
        assert!(migrated.status.success(), "migrate: {}", String::from_utf8_lossy(&migrated.stderr));
        let (raw, tables) = (Database::connect(&url).await.unwrap(), Tables::open(&url).await.unwrap());
        let (programs, address, course) = (Vec::new(), SocketAddr::from(([127, 0, 0, 1], 0)), Course::default());
        let mut world = Self { settings, programs, address, double, clock, raw, tables, course, scratch };
        world.start_programs().await;
        let meter = json!({"event_name": METER, "stripe_meter_id": "mtr_1", "places": 6, "reason": "set-up"});
        world.put(&format!("meters/{METER}"), &meter).await;
        for number in 0..TENANTS {
            let mapping = json!({
                "stripe_customer_id": format!("cus_{number}"), "from_hour": "2026-01-01T00:00:00Z", "reason": "set-up",
            });
            world.put(&format!("mappings/tenant-{number}/{METER}"), &mapping).await;
        }
        world
    }

    async fn start_programs(&mut self) {
        while self.programs.len() < 2 {
            let settings = self.settings.iter().map(|(name, value)| (*name, value.clone()));
            let launch = Launch::new("billing-api", self.scratch.path()).of_debug_build().settings(settings);
            let mut program = launch.start().unwrap();
            self.address = program.address("billing listens on").await.unwrap();
            let goes_by = |output: &str| output.contains("goes by the clock in").then_some(());
            program.printed("the clock that it goes by", goes_by).await.unwrap();
            self.programs.push(program);
        }
    }

    async fn put(&self, path: &str, body: &Value) {
        self.call(Request::put(&format!("/billing/stripe/{path}"), body.to_string()), 201).await;
    }

    async fn call(&self, request: Request, status: u16) {
        let token = Claims::new("any", "ann").role("admin").sign(SECRET).unwrap();
        let request = request.header("content-type", "application/json").token(&token);
        let answer = request.send(self.address).await.unwrap();
        assert_eq!(answer.status, status, "{}: {}", request.target(), answer.text());
    }

    /// Usage of an hour, as workers leave it; of one that is over, they say so.
    async fn use_units(&mut self, tenant: i64, hour: i64, units: i64) {
        let hour = format!("to_timestamp({})", hour - hour % HOUR);
        let sql = format!(
            "INSERT INTO usage_rollups AS r (tenant_id, hour, route, action, rate_version, shard, events, units_micro) \
             VALUES ('tenant-{tenant}', {hour}, '/a', 'read', 1, 0, 1, {units}000000) \
             ON CONFLICT (tenant_id, hour, route, action, rate_version, shard) \
             DO UPDATE SET events = r.events + 1, units_micro = r.units_micro + EXCLUDED.units_micro; \
             INSERT INTO usage_late_hours AS h (tenant_id, hour, changes, changed_at) \
             VALUES ('tenant-{tenant}', {hour}, 1, now()) \
             ON CONFLICT (tenant_id, hour) DO UPDATE SET changes = h.changes + 1, changed_at = now()"
        );
        self.raw.execute_unprepared(&sql).await.unwrap();
        self.course.used += units;
    }

    /// Moves the clock while no call is under way, which would take as long as it jumps: nobody takes a lane meanwhile, and
    /// what is done in those that are taken comes to its end.
    async fn forward(&mut self, seconds: i64) {
        let holding = self.raw.begin().await.unwrap();
        holding.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({LANES_LOCK})")).await.unwrap();
        for _ in 0..20 {
            if self.is_nobody_at_work().await {
                break;
            }
            // A lane that a program could not give back, where the machine was too busy, is free when its lease is over.
            self.clock.set(self.clock.now() + 20);
        }
        self.clock.set(self.clock.now() + seconds);
        holding.commit().await.unwrap();
    }

    /// Waits until nobody has a lane any more; not for long.
    async fn is_nobody_at_work(&self) -> bool {
        let taken = format!(
            "SELECT COUNT(*) FROM stripe_lanes WHERE owner IS NOT NULL AND leased_until > to_timestamp({})",
            self.clock.now()
        );
        let all_free = async || Ok((self.tables.number(&taken).await? == 0).then_some(()));
        wait_for("lanes that nobody works in", CALL, all_free).await.is_ok()
    }

    /// Kills both programs, one shortly after the other, wherever they are in their work, and starts them again after a while.
    async fn kill_both(&mut self, random: &mut StdRng) {
        for mut program in std::mem::take(&mut self.programs) {
            tokio::time::sleep(Duration::from_millis(random.random_range(0..60))).await;
            program.kill().unwrap();
            self.course.kills += 1;
        }
        // What they have sent is worked off in the hour in which it was sent; the leases that they leave end a minute later.
        self.double.drained(PATIENCE).await.unwrap();
        let away = if random.random_bool(0.2) { 25 * HOUR } else { MINUTE + 1 };
        self.clock.set(self.clock.now() + away);
        self.start_programs().await;
    }

    /// Waits until every hour that is settled has its rows.
    async fn sealed(&self) {
        let settled = self.clock.now() - 5 * MINUTE;
        let open = format!(
            "SELECT COUNT(*) FROM (SELECT tenant_id, hour, SUM(units_micro) AS used FROM usage_rollups GROUP BY 1, 2) AS r \
             WHERE r.hour < date_trunc('hour', to_timestamp({settled})) AND r.used <> (SELECT COALESCE(SUM(p.units_micro), 0) \
                 FROM stripe_pushes AS p WHERE p.tenant_id = r.tenant_id AND p.hour = r.hour AND p.state <> 'abandoned')"
        );
        let is_sealed = async || Ok((self.tables.number(&open).await? == 0).then_some(()));
        wait_for("rows of every settled hour", PATIENCE, is_sealed).await.unwrap();
    }

    /// Gives programs the time to send what is due now, as far as that can be sent now.
    async fn worked(&self) {
        let due = format!(
            "SELECT COUNT(*) FROM stripe_pushes WHERE state IN ('pending', 'held', 'pushed') \
             AND next_attempt_at <= to_timestamp({})",
            self.clock.now()
        );
        wait_for("the work", WORK, async || Ok((self.tables.number(&due).await? == 0).then_some(()))).await.ok();
    }

    /// One step of the course.
    async fn step(&mut self, random: &mut StdRng) {
        for tenant in 0..TENANTS {
            let late = if random.random_bool(0.1) { random.random_range(0..48) * HOUR } else { 0 };
            let at = (self.clock.now() - late).max(START);
            self.use_units(tenant, at, random.random_range(1..50)).await;
        }
        let mut seconds = random.random_range(20..180) * MINUTE;
        if random.random_bool(0.01) {
            self.course.jumps += 1;
            seconds = [25 * HOUR, 47 * HOUR, -4 * MINUTE][random.random_range(0..3)];
        }
        self.forward(seconds).await;
        if random.random_bool(0.08) {
            self.kill_both(random).await;
        }
        self.sealed().await;
        self.worked().await;
        self.course.steps += 1;
    }

    /// Lets time go by until every row is confirmed or given up; rows that failed are looked at, as a person would.
    async fn settle(&mut self) {
        let open = "SELECT COUNT(*) FROM stripe_pushes WHERE state <> 'abandoned' AND confirmed_at IS NULL";
        for _ in 0..500 {
            if self.tables.number(open).await.unwrap() == 0 {
                return;
            }
            let failed = "SELECT id::text AS id FROM stripe_pushes WHERE state = 'failed'";
            for id in self.tables.texts(failed).await.unwrap() {
                let reason = json!({"reason": "looked at"}).to_string();
                self.call(Request::post(&format!("/billing/stripe/pushes/{id}/retry"), reason), 202).await;
            }
            self.forward(HOUR / 2).await;
            self.sealed().await;
            self.worked().await;
        }
        panic!("rows stay undecided: {:?}", self.undecided().await);
    }

    async fn undecided(&self) -> Vec<String> {
        let sql = "SELECT p::text AS row FROM stripe_pushes AS p WHERE state <> 'abandoned' AND confirmed_at IS NULL";
        self.tables.texts(sql).await.unwrap()
    }

    /// Both sides, lane by lane.
    async fn compare(&self, seed: u64) {
        for number in 0..TENANTS {
            let ledger =
                format!("SELECT SUM(units_micro)::bigint FROM usage_rollups WHERE tenant_id = 'tenant-{number}'");
            let ledger = i128::from(self.tables.number(&ledger).await.unwrap());
            let stripe = self.double.total(&format!("cus_{number}"), METER);
            assert_eq!(stripe, ledger, "seed {seed}: Stripe and the ledger in lane {number}");
        }
        let late = "SELECT COUNT(*) FROM stripe_pushes WHERE last_attempt_at - first_attempt_at >= interval '23 hours'";
        assert_eq!(self.tables.number(late).await.unwrap(), 0, "seed {seed}: attempts after 23 hours");
        let blocked = "SELECT COUNT(*) FROM stripe_lanes WHERE blocked IS NOT NULL";
        assert_eq!(self.tables.number(blocked).await.unwrap(), 0, "seed {seed}: blocked lanes");
    }

    async fn report(&self) {
        let states = "SELECT state || ' ' || COUNT(*) || ', attempts ' || SUM(attempts) AS text FROM stripe_pushes GROUP BY state";
        let calls = ["send", "summaries", "meter"].map(|call| (call, self.double.calls(call)));
        eprintln!("{:?}; calls {calls:?}; rows {:?}", self.course, self.tables.texts(states).await.unwrap());
    }
}

fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_built_programs_push_is_what_the_ledger_has_after_any_days() {
    let usual = if crate::soak() { DAYS_OF_SOAK } else { DAYS };
    let days = number_of("SIMULATED_DAYS").map_or(usual, |days| days.try_into().unwrap());
    let seed = number_of("SEED").unwrap_or_else(rand::random::<u64>);
    eprintln!("{days} days, seed {seed}");
    let (mut world, mut random) = (World::start().await, StdRng::seed_from_u64(seed));
    world.double.seed(seed);
    let mut weather = START;
    while world.clock.now() < START + days * 24 * HOUR {
        if world.clock.now() >= weather {
            let outage = [Some(true), Some(false), None, None, None, None][random.random_range(0..6)];
            world.double.set_faults(Faults {
                share: 0.3,
                lag_max: 6 * HOUR,
                dropped: 0.004,
                outage,
                ..Faults::default()
            });
            weather = world.clock.now() + random.random_range(1..30) * HOUR;
        }
        world.step(&mut random).await;
        if world.course.steps % 200 == 0 {
            world.report().await;
        }
    }
    world.double.set_faults(Faults::default());
    world.settle().await;
    world.report().await;
    assert_eq!(world.double.violations(), [""; 0], "seed {seed}");
    world.compare(seed).await;
}
