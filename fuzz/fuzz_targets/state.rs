//! The hash of observations: lines are a field and its value in turn. It may have
//! been written by anybody.
#![no_main]

use libfuzzer_sys::fuzz_target;
use redis_hygiene::core::beat::{Evidence, Traffic, doctor, judge, reply};
use redis_hygiene_fuzz::{lines, within};

/// 2026-11-25T03:46:21Z.
const NOW: i64 = 1_795_578_381_000;

/// The fields that are written, in as many goes as it takes.
fn told(traffic: &mut Traffic) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut fields = Vec::new();
    while traffic.has_changes() {
        fields.extend(traffic.take_changes(|| false).set);
    }
    fields
}

fuzz_target!(|input: &[u8]| {
    let lines = lines(input);
    let fields = lines.chunks_exact(2).map(|pair| (pair[0], pair[1]));
    let mut traffic = within(input, 512, || Traffic::read(fields, NOW));
    let mut hearing = traffic.hear(1_000);
    while traffic.hear_on(&mut hearing, NOW + 1_000, 32, |_| true) {}
    let evidence = Evidence {
        heard: hearing.heard(),
        ..Evidence::default()
    };
    let assessment = within(input, 512, || judge(&evidence, NOW + 1_000));
    let _ = reply(&assessment, true);
    // To draw a page takes longer than all the rest, so few inputs get one.
    if input.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)) % 16 == 0 {
        let _ = doctor(&assessment, NOW + 1_000);
    }
    traffic.redbeat_ticked(NOW + 2_000, 0, b"redbeat::lock", 1_500_000);
    traffic.pushed(NOW + 2_000, 0, b"celery", None);
    traffic.popped(NOW + 2_001, 0, b"celery");

    // What is written is read back as it was.
    traffic.mark_all_changed();
    let first = told(&mut traffic);
    let pairs = |set: &[(Vec<u8>, Vec<u8>)]| {
        let mut set = set.to_vec();
        set.sort();
        set
    };
    let again = |set: &[(Vec<u8>, Vec<u8>)]| {
        let fields = set.iter().map(|(f, v)| (f.as_slice(), v.as_slice()));
        let mut traffic = Traffic::read(fields, NOW);
        traffic.mark_all_changed();
        told(&mut traffic)
    };
    let second = again(&first);
    let third = again(&second);
    assert_eq!(pairs(&second), pairs(&third), "written twice");
});
