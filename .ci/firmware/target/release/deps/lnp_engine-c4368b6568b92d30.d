/work/main/.ci/firmware/target/release/deps/lnp_engine-c4368b6568b92d30.d: /work/main/engine/src/lib.rs /work/main/engine/src/adapt.rs /work/main/engine/src/adapt/fit.rs /work/main/engine/src/arena/mod.rs /work/main/engine/src/arena/slot.rs /work/main/engine/src/arena/staging.rs /work/main/engine/src/cache/mod.rs /work/main/engine/src/cache/linking_aligned.rs /work/main/engine/src/cache/lru.rs /work/main/engine/src/cache/policy.rs /work/main/engine/src/cache/s3_fifo.rs /work/main/engine/src/cache/table.rs /work/main/engine/src/engine/mod.rs /work/main/engine/src/engine/bank.rs /work/main/engine/src/engine/config.rs /work/main/engine/src/engine/round.rs /work/main/engine/src/engine/session.rs /work/main/engine/src/engine/stats.rs /work/main/engine/src/engine/workers.rs /work/main/engine/src/error.rs /work/main/engine/src/ffn.rs /work/main/engine/src/law.rs /work/main/engine/src/law/curve.rs /work/main/engine/src/limits.rs /work/main/engine/src/plan.rs /work/main/engine/src/plan/cheapest.rs /work/main/engine/src/plan/merge.rs /work/main/engine/src/queue/mod.rs /work/main/engine/src/queue/simulated/mod.rs /work/main/engine/src/queue/simulated/faults.rs /work/main/engine/src/sync.rs

/work/main/.ci/firmware/target/release/deps/liblnp_engine-c4368b6568b92d30.rlib: /work/main/engine/src/lib.rs /work/main/engine/src/adapt.rs /work/main/engine/src/adapt/fit.rs /work/main/engine/src/arena/mod.rs /work/main/engine/src/arena/slot.rs /work/main/engine/src/arena/staging.rs /work/main/engine/src/cache/mod.rs /work/main/engine/src/cache/linking_aligned.rs /work/main/engine/src/cache/lru.rs /work/main/engine/src/cache/policy.rs /work/main/engine/src/cache/s3_fifo.rs /work/main/engine/src/cache/table.rs /work/main/engine/src/engine/mod.rs /work/main/engine/src/engine/bank.rs /work/main/engine/src/engine/config.rs /work/main/engine/src/engine/round.rs /work/main/engine/src/engine/session.rs /work/main/engine/src/engine/stats.rs /work/main/engine/src/engine/workers.rs /work/main/engine/src/error.rs /work/main/engine/src/ffn.rs /work/main/engine/src/law.rs /work/main/engine/src/law/curve.rs /work/main/engine/src/limits.rs /work/main/engine/src/plan.rs /work/main/engine/src/plan/cheapest.rs /work/main/engine/src/plan/merge.rs /work/main/engine/src/queue/mod.rs /work/main/engine/src/queue/simulated/mod.rs /work/main/engine/src/queue/simulated/faults.rs /work/main/engine/src/sync.rs

/work/main/.ci/firmware/target/release/deps/liblnp_engine-c4368b6568b92d30.rmeta: /work/main/engine/src/lib.rs /work/main/engine/src/adapt.rs /work/main/engine/src/adapt/fit.rs /work/main/engine/src/arena/mod.rs /work/main/engine/src/arena/slot.rs /work/main/engine/src/arena/staging.rs /work/main/engine/src/cache/mod.rs /work/main/engine/src/cache/linking_aligned.rs /work/main/engine/src/cache/lru.rs /work/main/engine/src/cache/policy.rs /work/main/engine/src/cache/s3_fifo.rs /work/main/engine/src/cache/table.rs /work/main/engine/src/engine/mod.rs /work/main/engine/src/engine/bank.rs /work/main/engine/src/engine/config.rs /work/main/engine/src/engine/round.rs /work/main/engine/src/engine/session.rs /work/main/engine/src/engine/stats.rs /work/main/engine/src/engine/workers.rs /work/main/engine/src/error.rs /work/main/engine/src/ffn.rs /work/main/engine/src/law.rs /work/main/engine/src/law/curve.rs /work/main/engine/src/limits.rs /work/main/engine/src/plan.rs /work/main/engine/src/plan/cheapest.rs /work/main/engine/src/plan/merge.rs /work/main/engine/src/queue/mod.rs /work/main/engine/src/queue/simulated/mod.rs /work/main/engine/src/queue/simulated/faults.rs /work/main/engine/src/sync.rs

/work/main/engine/src/lib.rs:
/work/main/engine/src/adapt.rs:
/work/main/engine/src/adapt/fit.rs:
/work/main/engine/src/arena/mod.rs:
/work/main/engine/src/arena/slot.rs:
/work/main/engine/src/arena/staging.rs:
/work/main/engine/src/cache/mod.rs:
/work/main/engine/src/cache/linking_aligned.rs:
/work/main/engine/src/cache/lru.rs:
/work/main/engine/src/cache/policy.rs:
/work/main/engine/src/cache/s3_fifo.rs:
/work/main/engine/src/cache/table.rs:
/work/main/engine/src/engine/mod.rs:
/work/main/engine/src/engine/bank.rs:
/work/main/engine/src/engine/config.rs:
/work/main/engine/src/engine/round.rs:
/work/main/engine/src/engine/session.rs:
/work/main/engine/src/engine/stats.rs:
/work/main/engine/src/engine/workers.rs:
/work/main/engine/src/error.rs:
/work/main/engine/src/ffn.rs:
/work/main/engine/src/law.rs:
/work/main/engine/src/law/curve.rs:
/work/main/engine/src/limits.rs:
/work/main/engine/src/plan.rs:
/work/main/engine/src/plan/cheapest.rs:
/work/main/engine/src/plan/merge.rs:
/work/main/engine/src/queue/mod.rs:
/work/main/engine/src/queue/simulated/mod.rs:
/work/main/engine/src/queue/simulated/faults.rs:
/work/main/engine/src/sync.rs:
