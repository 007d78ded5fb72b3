use std::ops::ControlFlow;

/// How far a picture is; told often, also while nothing has changed, so that the work can be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Parts of the picture that are done, of `total`.
    pub done: usize,
    pub total: usize,
}

/// What is told of progress, and may answer `Break` to end the work.
pub type OnProgress<'a> = &'a mut dyn FnMut(Progress) -> ControlFlow<()>;
