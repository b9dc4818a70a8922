//! Any sequence of operations, faults and crashes, against the model.

use std::io::ErrorKind;
use std::time::Duration;

use proptest::prelude::*;

use super::disk::Fault;
use super::model::{OPS, World};

#[derive(Debug, Clone)]
enum Action {
    Intend(usize),
    Publish(u64),
    Void(u64),
    Note,
    CloseEpoch,
    Sync,
    Keep,
    Read,
    ReadAll,
    Acknowledge(u64),
    Rewind,
    Fault {
        op: usize,
        from: u64,
        count: u64,
        full: bool,
    },
    Heal,
    Room(Option<usize>),
    Kill,
    CutPower,
    /// A crash while the recovery of a crash goes on.
    CrashInRecovery {
        from: u64,
        power: bool,
    },
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        30 => (0..3000_usize).prop_map(Action::Intend),
        20 => any::<u64>().prop_map(Action::Publish),
        6 => any::<u64>().prop_map(Action::Void),
        3 => Just(Action::Note),
        1 => Just(Action::CloseEpoch),
        10 => Just(Action::Sync),
        10 => Just(Action::Keep),
        8 => Just(Action::Read),
        2 => Just(Action::ReadAll),
        6 => any::<u64>().prop_map(Action::Acknowledge),
        1 => Just(Action::Rewind),
        2 => (0..=OPS.len(), 0..30_u64, 1..6_u64, any::<bool>())
            .prop_map(|(op, from, count, full)| Action::Fault { op, from, count, full }),
        3 => Just(Action::Heal),
        1 => prop_oneof![Just(None), (100_000..400_000_usize).prop_map(Some)].prop_map(Action::Room),
        2 => Just(Action::Kill),
        2 => Just(Action::CutPower),
        1 => (0..40_u64, any::<bool>()).prop_map(|(from, power)| Action::CrashInRecovery { from, power }),
    ]
}

fn run(world: &mut World, action: &Action) {
    match *action {
        Action::Intend(bytes) => {
            world.intend(bytes);
        }
        Action::Publish(nth) => world.settle(nth, true),
        Action::Void(nth) => world.settle(nth, false),
        Action::Note => world.note(),
        Action::CloseEpoch => world.close_oldest_epoch(),
        Action::Sync => world.sync(),
        Action::Keep => {
            world.keep();
        }
        Action::Read => world.read(),
        Action::ReadAll => world.read_all(),
        Action::Acknowledge(nth) => world.acknowledge(nth),
        Action::Rewind => world.rewind(),
        Action::Fault { op, from, count, full } => {
            let kind = if full { ErrorKind::StorageFull } else { ErrorKind::Other };
            world.fail(Some(Fault { from, count, kind, only: OPS.get(op).copied() }));
        }
        Action::Heal => world.fail(None),
        Action::Room(room) => world.disk.set_room(room),
        Action::Kill | Action::CutPower => {
            world.fail(None);
            world.disk.set_room(None);
            if matches!(action, Action::Kill) {
                world.kill()
            } else {
                world.cut_power()
            }
            world.open();
        }
        Action::CrashInRecovery { from, power } => {
            world.disk.set_room(None);
            world.kill();
            world.fail(Some(Fault { from, count: u64::MAX / 2, kind: ErrorKind::Other, only: None }));
            world.open_and_crash(power);
            world.fail(None);
            world.open();
        }
    }
}

fn cases() -> u32 {
    if std::env::var_os("GOLDLEAVES_SOAK").is_some() { 5_000 } else { 200 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_twice_or_invented(
        seed in any::<u64>(),
        keep_nothing in any::<bool>(),
        actions in prop::collection::vec(action(), 1..250),
    ) {
        let mut world = World::new(seed);
        if keep_nothing {
            world.options.retain = Duration::ZERO;
        }
        world.open();
        for action in &actions {
            run(&mut world, action);
        }
        world.fail(None);
        world.disk.set_room(None);
        for _ in 0..12 {
            // Poisoned segments are replaced, spares made, what was acknowledged goes.
            world.sync();
            world.keep();
        }
        world.read_all();
        world.cut_power();
        world.open();
        world.read_all();
    }
}
