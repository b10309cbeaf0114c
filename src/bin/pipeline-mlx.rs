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
    use cpu::Cpu;

    let refused = || anyhow::bail!("this pipeline was built without MLX; build it with `--features mlx`");
    models::worker::serve::<Cpu>(refused, || None)
}
