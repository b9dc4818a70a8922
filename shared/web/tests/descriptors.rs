//! A process without file descriptors: accepting is waited out, never fatal.
//!
//! The limit is the whole process's, so the server is a second process of this program.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::convert::Infallible;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use goldleaves_web::{ListenerOptions, ServeOptions, Stop, WebBody, bind, serve};
use http::{Request, Response};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const DESCRIPTORS: u64 = 40;
const SERVER: &str = "--server-with-few-descriptors";

/// Ended with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() {
    if std::env::args().any(|argument| argument == SERVER) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(serve_with_few_descriptors());
    }
    running_out_of_descriptors_is_waited_out();
    println!("running out of descriptors is waited out ... ok");
}

/// Answers every request with how often accepting had failed.
async fn serve_with_few_descriptors() {
    let limit = Rlimit { current: Some(DESCRIPTORS), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, limit).unwrap();
    let listener = bind("127.0.0.1:0".parse().unwrap(), ListenerOptions::default()).unwrap();
    println!("{}", listener.local_addr().unwrap());
    let options = ServeOptions::default();
    let stats = options.stats.clone();
    let service = tower::service_fn(move |_: Request<WebBody>| {
        let errors = stats.accept_errors().to_string();
        async { Ok::<_, Infallible>(Response::new(WebBody::full(errors))) }
    });
    serve(listener, service, options, Stop::default()).await;
}

fn accept_errors(address: &str) -> u64 {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.rsplit("\r\n").next().unwrap().parse().unwrap()
}

fn running_out_of_descriptors_is_waited_out() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let mut server = Server(command.arg(SERVER).stdout(Stdio::piped()).spawn().unwrap());
    let mut address = String::new();
    BufReader::new(server.0.stdout.take().unwrap()).read_line(&mut address).unwrap();
    let address = address.trim().to_owned();
    assert_eq!(accept_errors(&address), 0);
    let held: Vec<TcpStream> = (0..DESCRIPTORS * 2).map(|_| TcpStream::connect(&address).unwrap()).collect();
    let waiting = std::thread::spawn(move || accept_errors(&address));
    // The last is in the backlog behind those that found no descriptor.
    std::thread::sleep(Duration::from_millis(300));
    drop(held);
    assert!(waiting.join().unwrap() > 0, "served again, after errors");
}
