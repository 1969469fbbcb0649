//! What is being done, on stderr.

use std::io::{IsTerminal as _, Write as _};
use std::time::Instant;

/// Counts steps.
pub struct Progress {
    begun: Instant,
    steps: usize,
    done: usize,
    what: String,
}

impl Progress {
    /// Of so many steps.
    pub fn new(steps: usize) -> Self {
        Self { begun: Instant::now(), steps, done: 0, what: String::new() }
    }

    /// The next step begins.
    pub fn begin(&mut self, what: String) {
        self.what = what;
        if std::io::stderr().is_terminal() {
            eprint!("{} …", self.line());
            // Only for the eye.
            let _ = std::io::stderr().flush();
        }
    }

    /// It has ended.
    pub fn end(&mut self, outcome: &str) {
        let back = if std::io::stderr().is_terminal() { "\r" } else { "" };
        eprintln!("{back}{}: {outcome}", self.line());
        self.done += 1;
    }

    fn line(&self) -> String {
        let passed = self.begun.elapsed().as_secs();
        let left = (passed as usize * self.steps.saturating_sub(self.done)).checked_div(self.done);
        let left = left.map_or(String::new(), |left| format!(", about {} min left", left.div_ceil(60)));
        format!("[{:3}/{} {:02}:{:02}{left}] {}", self.done + 1, self.steps, passed / 60, passed % 60, self.what)
    }
}
