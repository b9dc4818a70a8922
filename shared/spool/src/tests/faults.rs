//! A fixed day in a spool's life, lived once for every operation that can fail in it, and for every way to fail.

use std::io::ErrorKind;

use super::disk::{Fault, Op};
use super::model::{OPS, World};

fn soak() -> bool {
    std::env::var_os("GOLDLEAVES_SOAK").is_some()
}

/// Recovers what was there, uses two segments or so, reads, acknowledges, deletes.
fn live(world: &mut World) {
    for round in 0..12_u64 {
        for number in 0..14 {
            world.intend(300 + number * 50);
            if number % 3 != 0 {
                world.settle(round * 7 + number as u64, number % 4 != 1);
            }
        }
        if round % 3 == 0 {
            world.note();
            world.close_oldest_epoch();
        }
        world.sync();
        world.keep();
        world.read();
        world.read();
        world.acknowledge(round * 3 + 2);
        if round == 7 {
            world.rewind();
        }
    }
}

fn day(seed: u64, fault: Option<Fault>) -> u64 {
    let mut world = World::new(seed);
    world.options.retain = std::time::Duration::ZERO;
    world.fail(fault);
    world.open();
    live(&mut world);
    world.kill();
    // After the kill the same fault again, if it has not struck yet.
    let mut failed = world.disk.failures();
    world.fail(fault.filter(|_| failed == 0));
    world.open();
    live(&mut world);
    failed += world.disk.failures();
    world.fail(None);
    world.cut_power();
    world.open();
    // It healed: everything works again and nothing is refused for long.
    for _ in 0..4 {
        world.keep();
        world.sync();
    }
    assert!(world.intend(500).is_some(), "it did not heal");
    live(&mut world);
    world.kill();
    world.open();
    world.sync();
    world.read_all();
    failed
}

fn every_nth(only: Option<Op>, kind: ErrorKind, count: u64) {
    let stride = match only {
        _ if soak() => 1,
        Some(_) => 5,
        None => 13,
    };
    let mut from = 0;
    loop {
        let fault = Fault { from, count, kind, only };
        println!("{fault:?}");
        if day(from, Some(fault)) == 0 {
            assert!(from > 0 || only == Some(Op::Truncate) || only == Some(Op::Rename), "{only:?} never happens");
            return;
        }
        from += stride;
    }
}

#[test]
fn a_day_without_faults() {
    assert_eq!(day(1, None), 0);
}

#[test]
fn each_operation_fails_once() {
    for op in OPS {
        every_nth(Some(op), ErrorKind::Other, 1);
    }
}

#[test]
fn a_full_disk_for_a_moment_or_longer() {
    for count in [1, 7] {
        every_nth(Some(Op::Allocate), ErrorKind::StorageFull, count);
        every_nth(Some(Op::Write), ErrorKind::StorageFull, count);
    }
}

#[test]
fn syncs_fail_again_and_again() {
    for count in [2, 3, 10] {
        every_nth(Some(Op::Sync), ErrorKind::Other, count);
    }
}

#[test]
fn everything_fails_for_a_while() {
    for count in [2, 5, 20] {
        every_nth(None, ErrorKind::Other, count);
    }
}
