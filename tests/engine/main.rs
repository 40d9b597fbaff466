//! The engine on Facts: every row of the fault catalogue that the API alone can judge, its healthy
//! twins, and the properties that hold for all Facts.

mod faults;
mod policies;
mod properties;
mod report;
mod timing;
mod twins;
mod walkthrough;
