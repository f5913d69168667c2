//! The thread's modes: whether calls are recorded, and whether they train.

use std::cell::Cell;

thread_local! {
    static RECORDING: Cell<bool> = const { Cell::new(false) };
    static TRAINING: Cell<bool> = const { Cell::new(false) };
}

#[inline]
pub fn is_recording() -> bool {
    RECORDING.get()
}
/// Sets the mode and gives the one before.
pub fn set_recording(on: bool) -> bool {
    RECORDING.replace(on)
}
#[inline]
pub fn is_training() -> bool {
    TRAINING.get()
}
/// Sets the mode and gives the one before.
pub fn set_training(on: bool) -> bool {
    TRAINING.replace(on)
}

/// Both modes, set for a scope and put back when dropped.
pub struct Mode(bool, bool);

impl Mode {
    pub fn set(recording: bool, training: bool) -> Mode {
        Mode(set_recording(recording), set_training(training))
    }
}

impl Drop for Mode {
    fn drop(&mut self) {
        set_recording(self.0);
        set_training(self.1);
    }
}
