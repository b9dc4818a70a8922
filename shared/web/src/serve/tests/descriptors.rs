//! A process without file descriptors: accepting is waited out, never fatal.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream as StdStream;
use std::process::{Child, Command, Stdio};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::*;

const CHILD: &str = "serve::tests::descriptors::server_with_few_descriptors";
const DESCRIPTORS: u64 = 40;

/// Ended with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
#[ignore = "the other process of `running_out_of_descriptors_is_waited_out`"]
async fn server_with_few_descriptors() {
    let limit = Rlimit { current: Some(DESCRIPTORS), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, limit).unwrap();
    let options = ServeOptions::default();
    let stats = options.stats.clone();
    let server = super::Server::start(options, move |_| {
        let errors = stats.accept_errors().to_string();
        async { Response::new(WebBody::full(errors)) }
    });
    println!("\nlistening on {}", server.address);
    server.running.await.unwrap();
}

fn accept_errors(address: &str) -> u64 {
    let mut stream = StdStream::connect(address).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.rsplit("\r\n").next().unwrap().parse().unwrap()
}

#[test]
fn running_out_of_descriptors_is_waited_out() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", CHILD, "--ignored", "--nocapture"]).stdout(Stdio::piped());
    let mut server = Server(command.spawn().unwrap());
    let lines = BufReader::new(server.0.stdout.take().unwrap()).lines();
    let address =
        lines.map(Result::unwrap).find_map(|line| Some(line.strip_prefix("listening on ")?.to_owned())).unwrap();
    assert_eq!(accept_errors(&address), 0);
    let mut held: Vec<StdStream> = Vec::new();
    for _ in 0..DESCRIPTORS * 2 {
        held.push(StdStream::connect(&address).unwrap());
    }
    let waiting = std::thread::spawn(move || accept_errors(&address));
    // The last is in the backlog behind those that found no descriptor.
    std::thread::sleep(Duration::from_millis(300));
    drop(held);
    assert!(waiting.join().unwrap() > 0, "served again, after errors");
}
