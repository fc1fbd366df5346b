//! Several frames to one connection: gathered by the kernel from their places, copied into one buffer for each
//! connection, or joined once and shared. Prints the CPU time of each way per send.
//!
//! Why it matters: a turn often owes a connection several frames. tickring joins them once for all the
//! connections that are owed the same.

use std::io::{IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};

use tickring_ring::sys;

fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut sender = TcpStream::connect(listener.local_addr()?)?;
    sender.set_nodelay(true)?;
    let (mut receiver, _) = listener.accept()?;
    let cores = sys::available_cores();
    let reader = std::thread::spawn(move || {
        let _ = sys::pin_to_core(cores[cores.len() - 1]);
        let mut buffer = vec![0; 1 << 20];
        while matches!(receiver.read(&mut buffer), Ok(1..)) {}
    });
    sys::pin_to_core(sys::available_cores()[0])?;
    let frames = vec![vec![b'x'; FRAME_BYTES]; FRAMES];
    let shared = frames.concat();
    let mut own = Vec::with_capacity(shared.len());
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        let measure = |send: &mut dyn FnMut() -> std::io::Result<()>| {
            let before = sys::thread_cpu_time();
            for _ in 0..SENDS {
                send()?;
            }
            Ok::<_, std::io::Error>((sys::thread_cpu_time() - before).as_nanos() / SENDS)
        };
        times[0].push(measure(&mut || {
            let slices: [IoSlice<'_>; FRAMES] = std::array::from_fn(|at| IoSlice::new(&frames[at]));
            // A blocking socket takes all of so little.
            assert_eq!(sender.write_vectored(&slices)?, shared.len());
            Ok(())
        })?);
        times[1].push(measure(&mut || {
            own.clear();
            frames.iter().for_each(|frame| own.extend_from_slice(frame));
            sender.write_all(&own)
        })?);
        times[2].push(measure(&mut || sender.write_all(&shared))?);
    }
    drop(sender);
    let _ = reader.join();
    println!(
        "{FRAMES} frames of {FRAME_BYTES} B a send, medians of {ROUNDS} interleaved rounds of {SENDS}:"
    );
    for (name, mut times) in ["gathered", "copied each time", "joined once"]
        .into_iter()
        .zip(times)
    {
        times.sort_unstable();
        let (median, quarter) = (times[ROUNDS / 2], ROUNDS / 4);
        println!(
            "{name:17} {median} ns a send ({} to {})",
            times[quarter],
            times[ROUNDS - 1 - quarter]
        );
    }
    Ok(())
}

const FRAMES: usize = 16;
const FRAME_BYTES: usize = 132;
const ROUNDS: usize = 31;
const SENDS: u128 = 5_000;
