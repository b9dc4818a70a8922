//! Messages per second that the publisher gets confirmed, and that the consumer delivers, on one server on this machine.
//!
//! `cargo run --release -p goldleaves-stream --example stream_throughput`

use std::time::Instant;

use goldleaves_domain::{Delivery, Publisher};
use goldleaves_stream::{
    ConnectSettings, Connection, Consumer, ConsumerOptions, Next, PublisherOptions, StreamPublisher, Topology,
};
use goldleaves_testkit::nats::NatsServer;

const MESSAGES: usize = 200_000;
const BATCH: usize = 4_096;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let server = NatsServer::start().await?;
    let settings = ConnectSettings {
        servers: server.url().parse()?,
        credentials_file: None,
        ca_file: None,
        name: "throughput".to_owned(),
    };
    let connection = Connection::connect(&settings).await?;
    let topology = Topology {
        replicas: 1,
        bytes_max: 4 << 30,
        bytes_min: 4 << 30,
        history: std::time::Duration::from_secs(45 * 86_400),
    };
    topology.declare(&connection).await?;
    for window in [1, 64, 1_024, 4_096] {
        let options = PublisherOptions { window, ..PublisherOptions::default() };
        let publisher = StreamPublisher::new(connection.clone(), topology, options);
        let count = if window == 1 { MESSAGES / 20 } else { MESSAGES };
        let batches = batches(count, window);
        let start = Instant::now();
        for batch in batches {
            publisher.publish(batch).await?;
        }
        report(&format!("publish, window {window}"), count, start);
    }
    let mut consumer = Consumer::new(connection.clone(), ConsumerOptions::default());
    let (mut taken, start) = (0, Instant::now());
    while taken < MESSAGES {
        let Next::Batch(batch) = consumer.next().await else { break };
        consumer.settle(&batch, |_| false).await;
        taken += batch.messages().len();
    }
    report("consume and acknowledge", taken, start);
    Ok(())
}

fn batches(count: usize, run: usize) -> Vec<Vec<Delivery>> {
    let payload = bytes::Bytes::from(vec![b'x'; 900]);
    let all: Vec<Delivery> = (0..count)
        .map(|index| Delivery {
            subject: format!("usage.v1.tenant-{}", index % 100),
            message_id: format!("0198c0de-{run:04x}-7000-8000-{index:012x}"),
            payload: payload.clone(),
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        })
        .collect();
    all.chunks(BATCH).map(<[Delivery]>::to_vec).collect()
}

fn report(what: &str, count: usize, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    // Printed for people; the counts are far below what f64 holds exactly.
    println!("{what}: {:.0} messages a second", count as f64 / seconds);
}
