//! Prefetching: reads of a later layer while others are consumed, and giving them up.

use super::bank::{Bank, DEMANDED};
use super::cut::{Cut, fewer};
use super::placing::Purpose;
use super::round::{bank_of, submit};
use super::{ActiveSet, Engine, FetchStats};
use crate::error::EngineError;
use crate::queue::{Completion, Feeder, TimedQueue, drain};

impl<'a, Q: TimedQueue<'a>> Engine<'a, Q> {
    /// Gives up all that is begun or prefetched, and waits until nothing is in flight.
    pub(super) fn settle(&mut self) {
        self.banks.0.iter_mut().for_each(Bank::abandon);
        // Errors are for nobody.
        let _ = drain(&mut self.queue);
        self.banks.drained();
        self.begun = None;
    }

    /// Gives up what is in one bank, and waits until nothing of it is in flight. What a layer that was begun needs
    /// and that fails meanwhile, its `finish` tells.
    pub(super) fn settle_bank(&mut self, number: usize) {
        self.banks.0[number].abandon();
        while self.banks.0[number].in_flight() {
            let Some(completion) = self.queue.wait() else { break };
            self.take(&completion);
        }
        self.banks.0[number].drained();
    }

    /// Takes note of a completion between two calls.
    fn take(&mut self, completion: &Completion) {
        let (number, extent) = bank_of(completion.tag);
        let Some(bank) = self.banks.0.get_mut(number) else { return };
        bank.progress.completed += 1;
        let wanted = number == DEMANDED || bank.reads.positions(extent).next().is_some();
        if let (Err(error), Some(begun), true) = (completion.result, &mut self.begun, wanted) {
            begun.failed.get_or_insert(error);
        }
    }

    /// See [`super::Session::go_on`].
    pub(super) fn go_on(&mut self) {
        if !self.queue.reads_in_background() {
            return;
        }
        while let Some(completion) = self.queue.poll() {
            self.take(&completion);
        }
        let now_ns = self.queue.now_ns();
        // What is demanded first, then what was prefetched of the same layer, then the oldest.
        let layer = self.begun.map_or(u32::MAX, |begun| begun.layer);
        for number in self.banks.reading_order(layer) {
            let feeder = if number == DEMANDED { Feeder::Demanded } else { Feeder::Prefetched };
            let bank = self.banks.0[number].split();
            let result = submit(&mut self.queue, feeder, bank, number, now_ns);
            // What is refused of another layer is for the fetch that needs it, which asks again.
            if let (Err(error), DEMANDED, Some(begun)) = (result, number, &mut self.begun) {
                begun.failed.get_or_insert(error);
            }
        }
    }

    /// See [`super::Session::prefetch`].
    pub(super) fn prefetch(
        &mut self,
        layer: u32,
        predicted: ActiveSet<'_>,
        mut cut: Cut<'_>,
    ) -> Result<FetchStats, EngineError> {
        self.check_layer(layer)?;
        if self.config.prefetch_bytes == 0 {
            let rule = "must be set for a prefetch";
            return Err(EngineError::Config { field: "prefetch_bytes", rule, found: 0 });
        }
        let begun = self.begun.map(|begun| begun.layer);
        if !self.queue.reads_in_background() || begun == Some(layer) {
            return Ok(FetchStats::default());
        }
        let in_use = begun.and_then(|layer| self.banks.prefetched(layer));
        let number = self.banks.next(layer, in_use);
        self.settle_bank(number);
        let staging_bytes = self.banks.0[number].reads.staging.bytes();
        loop {
            let purpose = Purpose::Prefetch(cut);
            let planned = self.plan_cheapest(number, layer, predicted.ids(), purpose)?;
            if planned.fits {
                self.banks.renew(number);
                self.banks.0[number].reads.want(core::iter::empty());
                self.submit_prefetched(layer)?;
                let plan = planned.plan;
                return Ok(FetchStats {
                    reads: plan.reads,
                    runs: plan.runs,
                    merges: plan.merges,
                    bytes_read: plan.bytes,
                    ..FetchStats::default()
                });
            }
            if planned.missing <= 1 {
                return Ok(FetchStats::default());
            }
            cut.most = fewer(planned.missing, planned.plan.bytes, staging_bytes);
        }
    }

    /// Submits what is prefetched, the oldest first, as far as it leaves room for what will be demanded.
    fn submit_prefetched(&mut self, layer: u32) -> Result<(), EngineError> {
        let now_ns = self.queue.now_ns();
        let [_, newest, older @ ..] = self.banks.reading_order(layer);
        for number in older.into_iter().chain([newest]) {
            let bank = self.banks.0[number].split();
            submit(&mut self.queue, Feeder::Prefetched, bank, number, now_ns)?;
        }
        Ok(())
    }
}
