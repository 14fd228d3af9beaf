//! Where the crate that runs templates differs from Go, the parsed template is changed.
//!
//! - Go prints a float with an exponent from 1e+06 on (`%v`), the crate never does. What an action prints,
//!   and what `printf` is given for a `%v`, therefore passes through a function that writes floats.
//! - Go refuses a function that does not exist when it reads the text, not when it comes to it.
//! - Go refuses an `{{end}}` too many; the crate stops there.
//! - A label that is not there is an empty text in Go, which knows that labels are texts; the crate has no
//!   value then. Labels are therefore looked up by a function.

use std::collections::BTreeMap;
use std::sync::Arc;

use gotmpl::parse::{CommandNode, Expr, ListNode, Node, PipeNode, SmolStr};
use gotmpl::{FuncMap, Template, Value};

/// Stands at the end of a text while it is parsed, to see that all of it was.
pub(super) const END: char = '\0';

/// The function that writes floats; not a name that a text could contain.
pub(super) const SHOWN: &str = "\0shown";

/// The function that looks up a label.
pub(super) const LABEL: &str = "\0label";

/// Functions of the language itself.
const BUILT_IN: [&str; 18] = [
    "and", "call", "eq", "ge", "gt", "html", "index", "js", "le", "len", "lt", "ne", "not", "or", "print",
    "printf", "println", "slice",
];

/// Changes all parts of a parsed template.
pub(super) fn adapt(mut template: Template, name: &str, functions: &FuncMap) -> Result<Template, String> {
    let parts: Vec<String> = template.templates().into_iter().map(str::to_owned).collect();
    for part in parts {
        let Some(mut tree) = template.lookup(&part).cloned() else { continue };
        if part == name {
            take_end(&mut tree)?;
        }
        list(&mut tree, functions)?;
        template = template.add_parse_tree(&part, tree);
    }
    Ok(template)
}

/// Removes the mark at the end of the text.
fn take_end(tree: &mut ListNode) -> Result<(), String> {
    let whole = match tree.nodes.last_mut() {
        Some(Node::Text(last)) => last.text.strip_suffix(END).map(Arc::from).map(|text| last.text = text),
        _ => None,
    };
    whole.ok_or_else(|| "unexpected {{end}}".to_owned())
}

fn list(list: &mut ListNode, functions: &FuncMap) -> Result<(), String> {
    list.nodes.iter_mut().try_for_each(|node| match node {
        Node::List(inner) => self::list(inner, functions),
        Node::Action(action) => {
            pipe(&mut action.pipe, functions)?;
            if action.pipe.decl.is_empty() {
                action.pipe.commands.push(shown(&action.pipe));
            }
            Ok(())
        }
        Node::If(branch) | Node::Range(branch) | Node::With(branch) => {
            pipe(&mut branch.pipe, functions)?;
            self::list(&mut branch.body, functions)?;
            branch.else_body.as_mut().map_or(Ok(()), |body| self::list(body, functions))
        }
        Node::Template(call) => call.pipe.as_mut().map_or(Ok(()), |inner| pipe(inner, functions)),
        Node::Define(define) => self::list(&mut define.body, functions),
        Node::Text(_) | Node::Break(_) | Node::Continue(_) => Ok(()),
    })
}

/// The call of the function that writes floats.
fn shown(pipe: &PipeNode) -> CommandNode {
    CommandNode { pos: pipe.pos, args: vec![Expr::Identifier(pipe.pos, SHOWN.into())] }
}

fn pipe(pipe: &mut PipeNode, functions: &FuncMap) -> Result<(), String> {
    for command in &mut pipe.commands {
        command.args.iter_mut().try_for_each(|arg| expr(arg, functions))?;
    }
    let mut at = 0;
    while at < pipe.commands.len() {
        // The last argument of a command comes from the one before it.
        if show_arguments(&mut pipe.commands[at]) && at > 0 {
            pipe.commands.insert(at, shown(pipe));
            at += 1;
        }
        at += 1;
    }
    Ok(())
}

fn expr(arg: &mut Expr, functions: &FuncMap) -> Result<(), String> {
    match arg {
        Expr::Identifier(_, name) => {
            let name = name.as_str();
            let known = functions.contains_key(name) || BUILT_IN.contains(&name) || name == "urlquery";
            if known { Ok(()) } else { Err(format!("function {name:?} not defined")) }
        }
        Expr::Pipe(_, inner) => pipe(inner, functions),
        Expr::Chain(_, inner, fields) => {
            expr(inner, functions)?;
            if let Some(name) = take_label(fields, false) {
                *arg = label(arg, &name);
            }
            Ok(())
        }
        Expr::Field(_, fields) => {
            if let Some(name) = take_label(fields, false) {
                *arg = label(arg, &name);
            }
            Ok(())
        }
        Expr::Variable(_, variable, fields) => {
            let is_labels = matches!(variable.as_str(), "$labels" | "$externalLabels");
            if let Some(name) = take_label(fields, is_labels) {
                *arg = label(arg, &name);
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Takes the last of the fields, if it is a label. `is_labels`: what the fields belong to is a label set.
fn take_label(fields: &mut Vec<SmolStr>, is_labels: bool) -> Option<SmolStr> {
    let found = match fields.as_slice() {
        [_] => is_labels,
        [.., set, _] => set == "Labels" || set == "ExternalLabels",
        [] => false,
    };
    if found { fields.pop() } else { None }
}

/// The look-up of a label in `set`.
fn label(set: &Expr, name: &str) -> Expr {
    let pos = set.pos();
    let args = vec![Expr::Identifier(pos, LABEL.into()), set.clone(), Expr::String(pos, name.into())];
    let commands = vec![CommandNode { pos, args }];
    Expr::Pipe(pos, PipeNode { pos, decl: Vec::new(), commands, is_assign: false })
}

/// Has the arguments of a `printf` that are printed by `%v` written before; says whether that goes for the
/// argument which comes from the pipe as well.
fn show_arguments(command: &mut CommandNode) -> bool {
    let pos = command.pos;
    let [Expr::Identifier(_, name), Expr::String(_, format), rest @ ..] = command.args.as_mut_slice() else {
        return false;
    };
    if name != "printf" {
        return false;
    }
    let verbs = verbs(format);
    for (arg, verb) in rest.iter_mut().zip(&verbs) {
        if *verb == 'v' {
            let value = CommandNode { pos, args: vec![arg.clone()] };
            let mut pipe = PipeNode { pos, decl: Vec::new(), commands: vec![value], is_assign: false };
            pipe.commands.push(shown(&pipe));
            *arg = Expr::Pipe(pos, pipe);
        }
    }
    verbs.get(rest.len()) == Some(&'v')
}

/// The verbs of a format, one for each argument. A width from an argument (`*`) takes one, too.
fn verbs(format: &str) -> Vec<char> {
    let mut verbs = Vec::new();
    let mut letters = format.chars();
    while letters.by_ref().any(|letter| letter == '%') {
        for letter in letters.by_ref() {
            match letter {
                '%' => break,
                '*' => verbs.push('*'),
                '+' | '-' | '#' | ' ' | '.' | '0'..='9' => {}
                verb => {
                    verbs.push(verb);
                    break;
                }
            }
        }
    }
    verbs
}

/// A value in which floats are written as Go writes them.
pub(super) fn show(value: &Value) -> Value {
    match value {
        Value::Float(value) => Value::from(go_float(*value)),
        Value::List(list) => Value::from(list.iter().map(show).collect::<Vec<_>>()),
        Value::Map(map) => {
            let shown = map.iter().map(|(key, value)| (Arc::clone(key), show(value)));
            Value::from(shown.collect::<BTreeMap<Arc<str>, Value>>())
        }
        other => other.clone(),
    }
}

/// Go's `%v` of a float.
fn go_float(value: f64) -> String {
    let scientific = model::float::format_scientific(value);
    let exponent = scientific.split_once('e').and_then(|(_, exponent)| exponent.parse::<i32>().ok());
    match exponent {
        Some(exponent) if (-4..6).contains(&exponent) => model::float::format_fixed(value),
        _ => scientific,
    }
}

/// Go's `print`: a space between two values neither of which is a text.
pub(super) fn print(args: &[Value]) -> String {
    let is_text = |value: &Value| matches!(value, Value::String(_));
    let mut out = String::new();
    for (at, arg) in args.iter().enumerate() {
        if at > 0 && !is_text(arg) && !is_text(&args[at - 1]) {
            out.push(' ');
        }
        out.push_str(&show(arg).to_string());
    }
    out
}

/// Go's `println`.
pub(super) fn println(args: &[Value]) -> String {
    let texts: Vec<String> = args.iter().map(|arg| show(arg).to_string()).collect();
    format!("{}\n", texts.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_as_go_prints_them() {
        for (value, text) in [
            (1.0, "1"),
            (123_456.0, "123456"),
            (1_234_567.0, "1.234567e+06"),
            (1e-5, "1e-05"),
            (0.0001, "0.0001"),
            (0.0, "0"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(go_float(value), text);
        }
    }

    #[test]
    fn verbs_of_formats() {
        assert_eq!(verbs("%v %.2f%% %-8s|%*d %"), ['v', 'f', 's', '*', 'd']);
        assert_eq!(verbs("none"), []);
    }
}
