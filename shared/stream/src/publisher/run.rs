//! The bookkeeping of one batch: which messages wait, which are unanswered, which are confirmed. No I/O.

use std::collections::{HashSet, VecDeque};

use goldleaves_domain::Delivery;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RunStage {
    Waiting,
    Unanswered,
    Confirmed,
}

/// One batch on its way.
#[derive(Debug)]
pub(super) struct Run {
    batch: Vec<Delivery>,
    stages: Vec<RunStage>,
    waiting: VecDeque<usize>,
    unanswered: usize,
    confirmed: usize,
}

impl Run {
    /// `known` are ids that a call before this one had confirmed.
    pub(super) fn new(batch: Vec<Delivery>, known: &HashSet<String>) -> Self {
        let stages: Vec<RunStage> = batch
            .iter()
            .map(|delivery| if known.contains(&delivery.message_id) { RunStage::Confirmed } else { RunStage::Waiting })
            .collect();
        let waiting: VecDeque<usize> = stages
            .iter()
            .enumerate()
            .filter(|(_, stage)| **stage == RunStage::Waiting)
            .map(|(index, _)| index)
            .collect();
        let confirmed = stages.len() - waiting.len();
        Self { batch, stages, waiting, unanswered: 0, confirmed }
    }

    pub(super) fn is_done(&self) -> bool {
        self.confirmed == self.batch.len()
    }

    /// Returns whether a payload that is not confirmed has more bytes than these.
    pub(super) fn has_larger_than(&self, bytes_max: usize) -> bool {
        let open = self.batch.iter().zip(&self.stages).filter(|(_, stage)| **stage != RunStage::Confirmed);
        open.into_iter().any(|(delivery, _)| delivery.payload.len() > bytes_max)
    }

    pub(super) const fn confirmed(&self) -> usize {
        self.confirmed
    }

    pub(super) const fn unanswered(&self) -> usize {
        self.unanswered
    }

    /// The next message to send, now unanswered.
    pub(super) fn next(&mut self) -> Option<(usize, &Delivery)> {
        while let Some(index) = self.waiting.pop_front() {
            // An ack that came late may have confirmed it while it waited for its second sending.
            if self.stages.get(index) == Some(&RunStage::Waiting) {
                self.set(index, RunStage::Unanswered);
                self.unanswered += 1;
                return self.batch.get(index).map(|delivery| (index, delivery));
            }
        }
        None
    }

    /// Takes an ack; `None` when there is no such message, or it was confirmed already.
    pub(super) fn confirm(&mut self, index: usize) -> Option<&str> {
        let stage = *self.stages.get(index)?;
        if stage == RunStage::Confirmed {
            return None;
        }
        self.unanswered -= usize::from(stage == RunStage::Unanswered);
        self.confirmed += 1;
        self.set(index, RunStage::Confirmed);
        self.batch.get(index).map(|delivery| delivery.message_id.as_str())
    }

    /// Takes a refusal: the message waits again.
    pub(super) fn refuse(&mut self, index: usize) {
        if self.stages.get(index) == Some(&RunStage::Unanswered) {
            self.unanswered -= 1;
            self.set(index, RunStage::Waiting);
            self.waiting.push_front(index);
        }
    }

    /// Everything unanswered waits again, in its old order, before what was never sent. How many that are.
    pub(super) fn give_up_unanswered(&mut self) -> usize {
        let stages = &mut self.stages;
        for index in (0..stages.len()).rev() {
            if let Some(stage) = stages.get_mut(index)
                && *stage == RunStage::Unanswered
            {
                *stage = RunStage::Waiting;
                self.waiting.push_front(index);
            }
        }
        std::mem::take(&mut self.unanswered)
    }

    /// The ids of what is confirmed.
    pub(super) fn confirmed_ids(&self) -> impl Iterator<Item = &str> {
        let confirmed = self.batch.iter().zip(&self.stages).filter(|(_, stage)| **stage == RunStage::Confirmed);
        confirmed.map(|(delivery, _)| delivery.message_id.as_str())
    }

    fn set(&mut self, index: usize, stage: RunStage) {
        if let Some(slot) = self.stages.get_mut(index) {
            *slot = stage;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(count: usize) -> Run {
        let delivery = |index: usize| Delivery {
            subject: "usage.v1.t".into(),
            message_id: index.to_string(),
            payload: Vec::new().into(),
            traceparent: None,
        };
        Run::new((0..count).map(delivery).collect(), &HashSet::new())
    }

    fn send(run: &mut Run) -> Option<usize> {
        run.next().map(|(index, _)| index)
    }

    #[test]
    fn what_has_no_answer_is_sent_again_first_and_in_order() {
        let mut run = run(4);
        assert_eq!([send(&mut run), send(&mut run), send(&mut run)], [0, 1, 2].map(Some));
        assert_eq!(run.confirm(1), Some("1"));
        assert_eq!(run.give_up_unanswered(), 2);
        assert_eq!(run.unanswered(), 0);
        assert_eq!([send(&mut run), send(&mut run), send(&mut run)], [Some(0), Some(2), Some(3)]);
        assert_eq!(send(&mut run), None);
    }

    #[test]
    fn an_ack_that_comes_late_counts_and_spares_the_second_sending() {
        let mut run = run(2);
        send(&mut run);
        send(&mut run);
        run.give_up_unanswered();
        assert_eq!(run.confirm(0), Some("0"));
        assert_eq!(run.confirm(0), None, "a second ack changes nothing");
        assert_eq!(send(&mut run), Some(1));
        run.refuse(1);
        assert_eq!(run.unanswered(), 0);
        assert_eq!(send(&mut run), Some(1));
        run.confirm(1);
        assert!(run.is_done());
        assert_eq!(run.confirm(7), None, "no such message");
    }

    #[test]
    fn what_an_earlier_call_confirmed_is_not_sent() {
        let mut run = run(3);
        run.confirm(1);
        let known = run.confirmed_ids().map(str::to_owned).collect();
        let mut again = Run::new(run.batch, &known);
        assert_eq!([send(&mut again), send(&mut again), send(&mut again)], [Some(0), Some(2), None]);
    }
}
