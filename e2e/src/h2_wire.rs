//! HTTP/2 as an attacker speaks it: frames by hand (RFC 9113), so that nothing is sent or read that a test does not want.

/// DATA.
pub const DATA: u8 = 0;
/// HEADERS.
pub const HEADERS: u8 = 1;
/// RST_STREAM.
pub const RESET: u8 = 3;
/// SETTINGS.
pub const SETTINGS: u8 = 4;
/// PING.
pub const PING: u8 = 6;
/// The flags of a head without a body.
pub const WHOLE: u8 = 5;
/// The flag of a head's end, before a body.
pub const HEAD: u8 = 4;
/// `GET http://a/`, by HPACK's static table and one literal.
pub const GET: &[u8] = b"\x82\x86\x84\x41\x01a";
/// The setting of the window that each stream begins with.
const INITIAL_WINDOW: [u8; 2] = [0, 4];
const WINDOW_UPDATE: u8 = 8;

/// A frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let mut bytes = length.get(1..).unwrap_or_default().to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// The start of a connection that grants so many bytes to each stream, and as many as there can be to all together.
pub fn preface(stream_window: u32) -> Vec<u8> {
    let window = [&INITIAL_WINDOW[..], &stream_window.to_be_bytes()].concat();
    let all = (0x7fff_ffff_u32 - 65_535).to_be_bytes();
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &window)[..], &frame(WINDOW_UPDATE, 0, 0, &all)]
        .concat()
}

/// The header block of a request for `path`, with a bearer token when there is one.
pub fn head(method: &str, path: &str, token: Option<&str>) -> Vec<u8> {
    let mut block = vec![0x86];
    // Names of the static table, values in full, nothing remembered (RFC 7541, 6.2.2).
    literal(&mut block, 2, method);
    literal(&mut block, 4, path);
    literal(&mut block, 1, "a");
    if let Some(token) = token {
        literal(&mut block, 23, &format!("Bearer {token}"));
    }
    block
}

fn literal(block: &mut Vec<u8>, name: u8, value: &str) {
    integer(block, 0, 15, usize::from(name));
    integer(block, 0, 127, value.len());
    block.extend(value.as_bytes());
}

/// An integer in what is left of a byte, and in more bytes where it does not fit (RFC 7541, 5.1).
fn integer(block: &mut Vec<u8>, first: u8, max: u8, number: usize) {
    let Some(mut rest) = number.checked_sub(usize::from(max)) else {
        block.push(first | u8::try_from(number).unwrap_or(max));
        return;
    };
    block.push(first | max);
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).unwrap_or_default() | 128);
        rest /= 128;
    }
    block.push(u8::try_from(rest).unwrap_or_default());
}
