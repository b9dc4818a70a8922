//! The gateway by other settings: ten thousand routes, which cost what ten do, and an upstream of HTTP/2.

use std::net::SocketAddr;

use anyhow::Result;
use serde_json::json;

use crate::server::{self, LOAD_CORE, Ours, Server};

/// The row that the others are compared with.
pub(crate) const FEW: &str = "10 routes, upstream of HTTP/1.1";
pub(crate) const MANY: &str = "10,000 routes, upstream of HTTP/1.1";
pub(crate) const OF_H2: &str = "10 routes, upstream of HTTP/2";

/// Starts a gateway for each row; the upstream of HTTP/2 comes last, as a row that is not measured.
pub(crate) async fn start(behind: SocketAddr) -> Result<Vec<Server>> {
    let of_h2 = server::upstream_as("upstream-of-h2", LOAD_CORE).await?;
    let mut servers = Vec::new();
    for (name, address, protocol, count) in
        [(FEW, behind, "http1", 10), (MANY, behind, "http1", 10_000), (OF_H2, of_h2.address, "h2", 10)]
    {
        let upstreams =
            json!([{"name": "docs", "addresses": [format!("http://{address}")], "protocol": protocol}]).to_string();
        let ours = Ours { name, program: "gateway", durability: "available" };
        servers.push(server::ours(ours, ("UPSTREAMS", upstreams), &routes(count)).await?.of_settings());
    }
    servers.push(of_h2);
    Ok(servers)
}

/// A number of routes, of which the last is the one that is called.
fn routes(count: usize) -> String {
    let route = |path: &str| format!("[[routes]]\npath = \"{path}\"\nupstream = \"docs\"\n");
    let others = (1..count).map(|number| route(&format!("/other/{number}/{}", number % 7)));
    others.chain([route(server::UNBILLED)]).collect()
}
