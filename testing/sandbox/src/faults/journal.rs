//! How everything was before a fault touched it, and the way back.

use kube::api::{DynamicObject, PostParams};
use serde_json::Value;

use super::kinds::Target;
use super::objects::{create, delete, fresh};
use super::place::Undo;
use super::{Error, Fixture};
use crate::error::Context;

/// A step of the way back.
pub(super) enum Entry {
    /// An object as it was before it was first touched.
    Object(Box<Before>),
    /// A script in the kernel's namespaces.
    Script(Undo),
}

/// An object as it was.
pub(super) struct Before {
    target: Target,
    /// `None`: it did not exist.
    before: Option<DynamicObject>,
    /// Controllers replace it as they like: if it is gone, it need not come back.
    passing: bool,
}

/// Writes down how the object is, unless that was done before.
pub(super) async fn note(fixture: &Fixture, target: &Target, passing: bool) -> Result<(), Error> {
    let mut journal = fixture.journal().lock().await;
    let is_known = |entry: &Entry| matches!(entry, Entry::Object(object) if object.target == *target);
    if journal.iter().any(is_known) {
        return Ok(());
    }
    let before = target
        .api(fixture.client())
        .get_opt(&target.name)
        .await
        .during("get", || target.to_string())?;
    journal.push(Entry::Object(Box::new(Before {
        target: target.clone(),
        before,
        passing,
    })));
    Ok(())
}

/// Writes down how a script is undone that is about to run.
pub(super) async fn note_script(fixture: &Fixture, undo: Undo) {
    fixture.journal().lock().await.push(Entry::Script(undo));
}

/// Goes back through the journal. An entry that cannot be restored stays, for another try.
pub(super) async fn undo(fixture: &Fixture) -> Result<(), Error> {
    let mut journal = fixture.journal().lock().await;
    while let Some(entry) = journal.last() {
        match entry {
            Entry::Object(object) => restore(fixture, object).await?,
            Entry::Script(undo) => undo.run(fixture).await?,
        }
        journal.pop();
    }
    Ok(())
}

async fn restore(fixture: &Fixture, entry: &Before) -> Result<(), Error> {
    let target = &entry.target;
    let Some(before) = &entry.before else {
        return delete(fixture, target).await;
    };
    let api = target.api(fixture.client());
    for attempt in 1.. {
        let now = api
            .get_opt(&target.name)
            .await
            .during("get", || target.to_string())?;
        let Some(now) = now else {
            return if entry.passing {
                Ok(())
            } else {
                create(fixture, target, &fresh(before)).await
            };
        };
        if now.metadata.uid != before.metadata.uid {
            if entry.passing {
                return Ok(());
            }
            delete(fixture, target).await?;
            return create(fixture, target, &fresh(before)).await;
        }
        let back = as_before(&now, before);
        match api
            .replace(&target.name, &PostParams::default(), &back)
            .await
            .during("restore", || target.to_string())
        {
            Err(error) if error.is_conflict() && attempt < 10 => continue,
            result => return Ok(result.map(|_| ())?),
        }
    }
    Ok(())
}

/// The present object with the content it had; what the server keeps about it stays.
fn as_before(now: &DynamicObject, before: &DynamicObject) -> DynamicObject {
    let mut back = now.clone();
    back.metadata.labels.clone_from(&before.metadata.labels);
    back.metadata.annotations.clone_from(&before.metadata.annotations);
    let status = now.data.get("status").cloned();
    back.data.clone_from(&before.data);
    if let Value::Object(data) = &mut back.data {
        match status {
            Some(status) => drop(data.insert("status".to_owned(), status)),
            None => drop(data.remove("status")),
        }
    }
    back
}
