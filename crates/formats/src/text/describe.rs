//! What `kubectl describe` says of one object: fields with values, of which a value may go on below the first line.

/// Most fields that are read.
const MAX_FIELDS: usize = 2_000;

/// A field at the left margin, and its values: that on its line, and those on the lines below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its values; `<none>` and `<unset>` are none.
    pub values: Vec<&'a str>,
}

/// The fields of a description in their order. A Service has one `Port:` for each port.
#[must_use]
pub fn fields(text: &str) -> Vec<Field<'_>> {
    let mut fields: Vec<Field<'_>> = Vec::new();
    for line in text.lines() {
        let value = |text: &'_ str| !matches!(text, "" | "<none>" | "<unset>");
        if line.starts_with([' ', '\t']) {
            let text = line.trim();
            if let Some(last) = fields.last_mut().filter(|_| value(text)) {
                last.values.push(text);
            }
        } else if let Some((name, text)) = line.split_once(':') {
            if fields.len() >= MAX_FIELDS {
                break;
            }
            let text = text.trim();
            fields.push(Field {
                name: name.trim(),
                values: Some(text).filter(|t| value(t)).into_iter().collect(),
            });
        }
    }
    fields
}

/// The values of the first field of a name.
#[must_use]
pub fn values<'f, 'a>(fields: &'f [Field<'a>], name: &str) -> &'f [&'a str] {
    let field = fields.iter().find(|f| f.name == name);
    field.map_or(&[], |f| &f.values)
}

/// The first value of the first field of a name.
#[must_use]
pub fn value<'a>(fields: &[Field<'a>], name: &str) -> Option<&'a str> {
    values(fields, name).first().copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_stand_beside_and_below_their_field() {
        let text = "\
Name:              web
Labels:            app=web
                   tier=db
Annotations:       <none>
Port:              http  80/TCP
TargetPort:        http/TCP
Port:              dns  53/UDP
";
        let fields = fields(text);
        assert_eq!(value(&fields, "Name"), Some("web"));
        assert_eq!(values(&fields, "Labels"), ["app=web", "tier=db"]);
        assert_eq!(value(&fields, "Annotations"), None);
        let ports = fields.iter().filter(|f| f.name == "Port").count();
        assert_eq!(ports, 2);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(Name|:|  |\n|<none>|é|\\PC){0,40}") {
            let found = fields(&text);
            let _ = value(&found, "Name");
        }
    }
}
