//! The `lnp` binary: see [`lnp::commands`].

fn main() -> std::process::ExitCode {
    lnp::commands::main()
}
