//! The worker that computes on MLX: models, and weights with `--backend mlx`.
//! Knows nothing of requests; `models::worker` answers them.

use std::process::ExitCode;

#[cfg(any(feature = "mlx", target_os = "macos"))]
fn main() -> ExitCode {
    use mlx::{Mlx, check_device};

    models::worker::serve(|| check_device().map(|()| Mlx), || Some(Box::new(Mlx)))
}

#[cfg(not(any(feature = "mlx", target_os = "macos")))]
fn main() -> ExitCode {
    use std::io::Write;

    use protocol::Reply;

    let message = "this pipeline was built without MLX; build it with `--features mlx`".to_owned();
    let reply = serde_json::to_string(&Reply::Failed(message)).expect("BUG: a reply has a JSON form");
    // If nobody listens, the exit code tells it.
    let _ = writeln!(std::io::stdout(), "{reply}");
    ExitCode::FAILURE
}
