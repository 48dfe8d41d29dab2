SUMMARY = "Sparse language models from flash"
DESCRIPTION = "Linked neuron packs: measures a device, replays traces on packs and runs models."

require lnp.inc

CARGO_SRC_DIR = "tools"
