//! Days of usage pushed by two built programs that are killed at random, through faults of every kind, by a clock that the test
//! drives and that jumps: what Stripe has in the end is what the ledger has, to the unit.
//!
//! The long form (`GOLDLEAVES_SOAK`) goes through 1,000 days, or as many as `SIMULATED_DAYS` says; `SEED` repeats a course, as
//! far as programs that run beside each other can. The programs are those of the debug build: released ones know no clock but
//! the database's. billing-api is alone with its database: hours of usage are put there as workers leave them, so that a day costs
//! seconds.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use goldleaves_e2e::deployment::SECRET;
use goldleaves_e2e::tables::Tables;
use goldleaves_testkit::child::wait_for;
use goldleaves_testkit::client::Request;
use goldleaves_testkit::postgres::Postgres;
use goldleaves_testkit::program::{Launch, Program};
use goldleaves_testkit::scratch::Scratch;
use goldleaves_testkit::stripe::{Door, Faults, StripeDouble};
use goldleaves_testkit::token::Claims;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use sea_orm::{ConnectionTrait as _, Database, DatabaseConnection, TransactionTrait as _};
use serde_json::{Value, json};

/// All usage, in millionths.
const UNITS: &str = "goldleaves_units";
/// The usage of one route, in whole units.
const WHOLE: &str = "goldleaves_whole";
const KEY: &str = "rk_test_double";
const MINUTE: i64 = 60;
const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
const DAYS: i64 = 5;
const DAYS_OF_SOAK: i64 = 1_000;
const PATIENCE: Duration = Duration::from_secs(120);
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
    retries: u64,
    weathers: BTreeMap<&'static str, u64>,
}

/// The state of Stripe for some hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weather {
    /// 30 % of the calls go wrong.
    Usual,
    /// Nine of ten do.
    Storm,
    /// Nothing is answered, after events were taken or before.
    Silent {
        is_taken: bool,
    },
    /// Nobody listens.
    Refused,
    /// Summaries say what they should not.
    Garbled,
    KeyRevoked,
    CustomerGone,
    MeterInactive,
}

impl Weather {
    const ALL: [(Self, &'static str); 14] = [
        (Self::Usual, "usual"),
        (Self::Usual, "usual"),
        (Self::Usual, "usual"),
        (Self::Usual, "usual"),
        (Self::Usual, "usual"),
        (Self::Storm, "storm"),
        (Self::Silent { is_taken: true }, "silent after"),
        (Self::Silent { is_taken: false }, "silent before"),
        (Self::Refused, "refused"),
        (Self::Garbled, "garbled"),
        (Self::Garbled, "garbled"),
        (Self::KeyRevoked, "key revoked"),
        (Self::CustomerGone, "customer gone"),
        (Self::MeterInactive, "meter inactive"),
    ];

    /// The time after which the clock goes on when nothing more was done, whatever is due. Where Stripe takes or says nothing that is
    /// soon; else a machine that is busy may be all that holds programs up.
    const fn still(self) -> Duration {
        match self {
            Self::Usual | Self::Storm | Self::Garbled => Duration::from_secs(2),
            _ => Duration::from_millis(100),
        }
    }

    fn faults(self) -> Faults {
        let outage = if let Self::Silent { is_taken } = self { Some(is_taken) } else { None };
        let share = if self == Self::Storm { 0.9 } else { 0.3 };
        let garbled = if self == Self::Garbled { 0.3 } else { 0.02 };
        Faults { share, lag_max: 6 * HOUR, dropped: 0.004, outage, garbled, ..Faults::default() }
    }
}

/// A program, and where it finds Stripe.
struct Seat {
    door: Door,
    program: Option<(Program, SocketAddr)>,
}

struct World {
    settings: BTreeMap<&'static str, String>,
    seats: [Seat; 2],
    double: StripeDouble,
    weather: Weather,
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
        double.add_meter("mtr_1", UNITS);
        double.add_meter("mtr_2", WHOLE);
        (0..TENANTS).for_each(|number| double.add_customer(&format!("cus_{number}")));
        let url = Postgres::shared().await.unwrap().empty_database().await.unwrap();
        let settings = BTreeMap::from([
            ("DATABASE_URL", url.clone()),
            ("JWT_SECRET", SECRET.to_owned()),
            ("BILLING_ADDR", "127.0.0.1:0".to_owned()),
            ("OPS_ADDR", "127.0.0.1:0".to_owned()),
            ("STRIPE_API_KEY", KEY.to_owned()),
            ("GOLDLEAVES_TEST_CLOCK", clock.file.display().to_string()),
        ]);
        let database = [("DATABASE_URL", url.clone())];
        let migrated = Launch::new("migrate", scratch.path()).of_debug_build().settings(database).output().unwrap();
        assert!(migrated.status.success(), "migrate: {}", String::from_utf8_lossy(&migrated.stderr));
        let (raw, tables) = (Database::connect(&url).await.unwrap(), Tables::open(&url).await.unwrap());
        let seat = async || Seat { door: double.another_door().await.unwrap(), program: None };
        let seats = [seat().await, seat().await];
        let (weather, course) = (Weather::Usual, Course::default());
        let mut world = Self { settings, seats, double, weather, clock, raw, tables, course, scratch };
        world.start_programs().await;
        world.set_up().await;
        world
    }

    async fn set_up(&self) {
        let meter = json!({"event_name": UNITS, "stripe_meter_id": "mtr_1", "places": 6, "reason": "set-up"});
        self.put(&format!("meters/{UNITS}"), &meter).await;
        let meter = json!({
            "event_name": WHOLE, "stripe_meter_id": "mtr_2", "route": "/b", "places": 0, "reason": "set-up",
        });
        self.put(&format!("meters/{WHOLE}"), &meter).await;
        let mut mapped: Vec<_> = (0..TENANTS).map(|number| (number, UNITS)).collect();
        mapped.push((0, WHOLE));
        for (number, meter) in mapped {
            let mapping = json!({
                "stripe_customer_id": format!("cus_{number}"), "from_hour": "2026-01-01T00:00:00Z", "reason": "set-up",
            });
            self.put(&format!("mappings/tenant-{number}/{meter}"), &mapping).await;
        }
    }

    async fn start_programs(&mut self) {
        for seat in self.seats.iter_mut().filter(|seat| seat.program.is_none()) {
            let settings = self.settings.iter().map(|(name, value)| (*name, value.clone()));
            let launch = Launch::new("billing-api", self.scratch.path()).of_debug_build().settings(settings);
            let mut program = launch.setting("STRIPE_API_BASE", seat.door.url()).start().unwrap();
            let address = program.address("billing listens on").await.unwrap();
            let goes_by = |output: &str| output.contains("goes by the clock in").then_some(());
            program.printed("the clock that it goes by", goes_by).await.unwrap();
            seat.program = Some((program, address));
        }
    }

    async fn put(&self, path: &str, body: &Value) {
        self.call(Request::put(&format!("/billing/stripe/{path}"), body.to_string()), 201).await;
    }

    async fn call(&self, request: Request, status: u16) {
        let address = self.seats.iter().find_map(|seat| seat.program.as_ref()).unwrap().1;
        let token = Claims::new("any", "ann").role("admin").sign(SECRET).unwrap();
        let request = request.header("content-type", "application/json").token(&token);
        let answer = request.send(address).await.unwrap();
        assert_eq!(answer.status, status, "{}: {}", request.target(), answer.text());
    }

    /// Usage of some hours, as workers leave it; of those that are over, they say so.
    async fn use_units(&self, used: &[(i64, i64, i64)]) {
        let mut statements = Vec::new();
        for (tenant, at, units_micro) in used {
            let hour = format!("to_timestamp({})", at - at % HOUR);
            let route = if units_micro % 2 == 0 { "/a" } else { "/b" };
            statements.push(format!(
                "INSERT INTO usage_rollups AS r (tenant_id, hour, route, action, rate_version, shard, events, units_micro) \
                 VALUES ('tenant-{tenant}', {hour}, '{route}', 'read', 1, 0, 1, {units_micro}) \
                 ON CONFLICT (tenant_id, hour, route, action, rate_version, shard) \
                 DO UPDATE SET events = r.events + 1, units_micro = r.units_micro + EXCLUDED.units_micro; \
                 INSERT INTO usage_late_hours AS h (tenant_id, hour, changes, changed_at) \
                 VALUES ('tenant-{tenant}', {hour}, 1, now()) \
                 ON CONFLICT (tenant_id, hour) DO UPDATE SET changes = h.changes + 1, changed_at = now()"
            ));
        }
        self.raw.execute_unprepared(&statements.join("; ")).await.unwrap();
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

    /// Kills one program or both, one shortly after the other, wherever they are in their work.
    async fn kill(&mut self, random: &mut StdRng) {
        let (first, is_both) = (random.random_range(0..2), random.random_bool(0.5));
        for number in [first, 1 - first].into_iter().take(if is_both { 2 } else { 1 }) {
            let Some(seat) = self.seats.get_mut(number) else { continue };
            let Some((mut program, _)) = seat.program.take() else { continue };
            tokio::time::sleep(Duration::from_millis(random.random_range(0..60))).await;
            program.kill().unwrap();
            self.course.kills += 1;
            // What it has sent is worked off in the hour in which it was sent.
            seat.door.drained(PATIENCE).await.unwrap();
        }
        // The leases that they leave are over a minute later.
        let is_away = is_both && random.random_bool(0.2);
        self.clock.set(self.clock.now() + if is_away { 25 * HOUR } else { MINUTE + 1 });
        if self.seats.iter().all(|seat| seat.program.is_none()) {
            self.start_programs().await;
        }
    }

    /// Waits until every hour that is settled has its rows.
    async fn sealed(&self) {
        let (first, settled) = (self.clock.now() - 60 * DAY, self.clock.now() - 5 * MINUTE);
        let hours = format!("hour >= to_timestamp({first}) AND hour < date_trunc('hour', to_timestamp({settled}))");
        let open = format!(
            "SELECT COUNT(*) FROM (SELECT m.meter, r.tenant_id, r.hour, SUM(r.units_micro) AS units FROM usage_rollups AS r \
                 JOIN stripe_meters AS m ON m.route IN ('', r.route) WHERE {hours} GROUP BY 1, 2, 3) AS used \
             LEFT JOIN (SELECT meter, tenant_id, hour, SUM(units_micro) AS units FROM stripe_pushes \
                 WHERE state <> 'abandoned' AND {hours} GROUP BY 1, 2, 3) AS made USING (meter, tenant_id, hour) \
             WHERE used.units <> COALESCE(made.units, 0)"
        );
        let is_sealed = async || Ok((self.tables.number(&open).await? == 0).then_some(()));
        wait_for("rows of every settled hour", PATIENCE, is_sealed).await.unwrap();
    }

    /// Gives programs the time to do what is due now, as far as it can be done now: an hour that goes by in a moment would leave
    /// them no time for what an hour is ample for.
    async fn worked(&self) {
        let sql = format!(
            "SELECT COUNT(*) FILTER (WHERE state IN ('pending', 'held', 'pushed') AND next_attempt_at <= {now} \
                     AND NOT EXISTS (SELECT 1 FROM stripe_lanes AS l WHERE l.stripe_customer_id = p.stripe_customer_id \
                         AND l.event_name = p.event_name AND l.blocked_at > {now} - interval '15 minutes')) \
                 || ' due, ' || SUM(attempts) || ' attempts, read ' || COUNT(read_back_at) || ' ' \
                 || COALESCE(SUM(extract(epoch FROM read_back_at)), 0) AS text FROM stripe_pushes AS p",
            now = format_args!("to_timestamp({})", self.clock.now())
        );
        let (began, mut last, mut since) = (Instant::now(), String::new(), Instant::now());
        while began.elapsed() < PATIENCE && since.elapsed() < self.weather.still() {
            let now = self.tables.texts(&sql).await.unwrap().pop().unwrap_or_default();
            if now.starts_with("0 due") || now.is_empty() {
                return;
            }
            if now != last {
                (last, since) = (now, Instant::now());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Usage since the last step, most of it of this hour, some of it late, and some of it less than was thought.
    async fn use_some(&mut self, random: &mut StdRng) {
        let mut used = Vec::new();
        for tenant in 0..TENANTS {
            used.push((tenant, self.clock.now(), random.random_range(1..50_000_000)));
            if random.random_bool(0.1) {
                let back = if random.random_bool(0.1) { 39 * 24 } else { 48 };
                let at = (self.clock.now() - random.random_range(1..back) * HOUR).max(START);
                used.push((tenant, at, [-7_000_000, 3_000_001, 11_500_000, 100_000_000][random.random_range(0..4)]));
            }
        }
        self.use_units(&used).await;
    }

    /// One step of the course.
    async fn step(&mut self, random: &mut StdRng) {
        self.use_some(random).await;
        let mut seconds = random.random_range(20..180) * MINUTE;
        if random.random_bool(0.7) {
            seconds = random.random_range(3..12) * HOUR + random.random_range(0..HOUR);
        }
        if random.random_bool(0.01) {
            self.course.jumps += 1;
            seconds = [25 * HOUR, 47 * HOUR, -4 * MINUTE][random.random_range(0..3)];
        }
        self.forward(seconds).await;
        if random.random_bool(0.08) {
            self.kill(random).await;
        } else if random.random_bool(0.4) {
            self.start_programs().await;
        }
        self.sealed().await;
        self.worked().await;
        self.course.steps += 1;
    }

    async fn set_weather(&mut self, weather: (Weather, &'static str)) {
        *self.course.weathers.entry(weather.1).or_default() += 1;
        let weather = weather.0;
        self.weather = weather;
        self.double.set_faults(weather.faults());
        for seat in &mut self.seats {
            match weather {
                Weather::Refused => seat.door.shut(),
                _ => seat.door.open().await.unwrap(),
            }
        }
        match weather {
            Weather::KeyRevoked => self.double.revoke_key(KEY),
            _ => self.double.add_key(KEY, false),
        }
        match weather {
            Weather::CustomerGone => self.double.delete_customer("cus_1"),
            _ => self.double.add_customer("cus_1"),
        }
        let status = if weather == Weather::MeterInactive { "inactive" } else { "active" };
        self.double.set_meter("mtr_1", "/status", json!(status));
    }

    /// Has rows that failed looked at, as a person would.
    async fn retry_failed(&mut self) {
        let failed = "SELECT id::text AS id FROM stripe_pushes WHERE state = 'failed'";
        for id in self.tables.texts(failed).await.unwrap() {
            let reason = json!({"reason": "looked at"}).to_string();
            self.call(Request::post(&format!("/billing/stripe/pushes/{id}/retry"), reason), 202).await;
            self.course.retries += 1;
        }
    }

    /// Lets time go by until every row is confirmed or given up.
    async fn settle(&mut self) {
        self.set_weather((Weather::Usual, "usual")).await;
        self.double.set_faults(Faults::default());
        self.start_programs().await;
        let open =
            "SELECT COUNT(*) FROM stripe_pushes WHERE state NOT IN ('abandoned', 'unmapped') AND confirmed_at IS NULL";
        let blocked = "SELECT COUNT(*) FROM stripe_lanes WHERE blocked IS NOT NULL";
        for _ in 0..500 {
            self.forward(HOUR / 2).await;
            self.sealed().await;
            self.worked().await;
            let left = self.tables.number(open).await.unwrap() + self.tables.number(blocked).await.unwrap();
            if left == 0 {
                return;
            }
            self.retry_failed().await;
        }
        panic!("rows stay undecided: {:?}", self.undecided().await);
    }

    async fn undecided(&self) -> Vec<String> {
        let sql = "SELECT p::text AS row FROM stripe_pushes AS p WHERE state NOT IN ('abandoned', 'unmapped') AND confirmed_at IS NULL \
             UNION ALL SELECT l::text AS row FROM stripe_lanes AS l WHERE blocked IS NOT NULL";
        self.tables.texts(sql).await.unwrap()
    }

    /// Both sides, lane by lane.
    async fn compare(&self, seed: u64) {
        for number in 0..TENANTS {
            let ledger = self.used_micro(&format!("tenant_id = 'tenant-{number}'")).await;
            let stripe = self.double.total(&format!("cus_{number}"), UNITS);
            eprintln!("lane {number}: Stripe {stripe}, the ledger {ledger}");
            assert_eq!(stripe, ledger, "seed {seed}: Stripe and the ledger in lane {number}");
        }
        let whole = self.used_micro("tenant_id = 'tenant-0' AND route = '/b'").await.div_euclid(1_000_000);
        assert_eq!(self.double.total("cus_0", WHOLE), whole, "seed {seed}: Stripe and the ledger in whole units");
        let late = "SELECT COUNT(*) FROM stripe_pushes WHERE last_attempt_at - first_attempt_at >= interval '23 hours'";
        assert_eq!(self.tables.number(late).await.unwrap(), 0, "seed {seed}: attempts after 23 hours");
    }

    async fn used_micro(&self, condition: &str) -> i128 {
        let sql = format!("SELECT SUM(units_micro)::bigint FROM usage_rollups WHERE {condition}");
        i128::from(self.tables.number(&sql).await.unwrap())
    }

    async fn report(&self, began: Instant) {
        let states = "SELECT state || ' ' || COUNT(*) || ', attempts ' || SUM(attempts) AS text FROM stripe_pushes GROUP BY state";
        let calls = ["send", "summaries", "meter"].map(|call| (call, self.double.calls(call)));
        let (day, seconds) = ((self.clock.now() - START) / DAY, began.elapsed().as_secs());
        eprintln!("day {day} after {seconds} s: {:?}", self.course);
        eprintln!("  calls {calls:?}; rows {:?}", self.tables.texts(states).await.unwrap());
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
    let (began, mut world, mut random) = (Instant::now(), World::start().await, StdRng::seed_from_u64(seed));
    world.double.seed(seed);
    let mut weather = START;
    while world.clock.now() < START + days * DAY {
        if world.clock.now() >= weather {
            world.set_weather(Weather::ALL[random.random_range(0..Weather::ALL.len())]).await;
            weather = world.clock.now() + random.random_range(1..30) * HOUR;
            world.retry_failed().await;
        }
        world.step(&mut random).await;
        if world.course.steps % 100 == 0 {
            world.report(began).await;
        }
    }
    world.settle().await;
    world.report(began).await;
    assert_eq!(world.double.violations(), [""; 0], "seed {seed}");
    world.compare(seed).await;
}
