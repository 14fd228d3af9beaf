use std::collections::BTreeMap;

use model::Labels;
use serde_json::Value;

use super::*;
use crate::corpus;

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn spec(config: &Value) -> RuleSpec {
    RuleSpec {
        source_labels: config["source_labels"].as_array().into_iter().flatten().filter_map(text).collect(),
        separator: text(&config["separator"]),
        regex: text(&config["regex"]),
        modulus: config["modulus"].as_u64().unwrap_or(0),
        target_label: text(&config["target_label"]).unwrap_or_default(),
        replacement: text(&config["replacement"]),
        action: text(&config["action"]).map_or(Action::Replace, |action| action.parse().unwrap()),
    }
}

fn map(value: &Value) -> BTreeMap<String, String> {
    value.as_object().into_iter().flatten().map(|(n, v)| (n.clone(), text(v).unwrap_or_default())).collect()
}

/// What relabelling makes of `input`; `None` if it drops it.
fn run(configs: &Value, input: &Value) -> Option<BTreeMap<String, String>> {
    let rules: Vec<Rule> = configs
        .as_array()
        .unwrap()
        .iter()
        .map(|config| Rule::new(spec(config), NameScheme::Utf8).unwrap())
        .collect();
    let mut builder = Labels::from_pairs(map(input)).to_builder();
    apply(&rules, &mut builder).then(|| builder.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect())
}

#[test]
fn recorded_cases() {
    let Some(text) = corpus::read("relabel/relabel.jsonl") else { return };
    let (mut passed, mut failed) = (0, Vec::new());
    for line in String::from_utf8(text).unwrap().lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let good = if case["kind"] == "process" {
            let expected = (case["keep"] == true).then(|| map(&case["output"]));
            run(&case["relabel_configs"], &case["input"]) == expected
        } else {
            let legacy = case["name_validation"] == "legacy";
            let names = if legacy { NameScheme::Legacy } else { NameScheme::Utf8 };
            let outcome = Rule::new(spec(&case["config"]), names).map(drop);
            outcome.map_err(|error| error.to_string())
                == if case["ok"] == true { Ok(()) } else { Err(case["error"].as_str().unwrap().to_owned()) }
        };
        if good { passed += 1 } else { failed.push(line.to_owned()) }
    }
    eprintln!("relabel.jsonl: {passed} passed, {} failed", failed.len());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn case_mapping_keeps_the_number_of_characters() {
    let upper_of = |text: &str| text.chars().map(upper).collect::<String>();
    let lower_of = |text: &str| text.chars().map(lower).collect::<String>();
    assert_eq!(upper_of("straße"), "STRAßE");
    assert_eq!(lower_of("ΑΣ"), "ας".replace('ς', "σ"));
    assert_eq!(lower_of("İ"), "i");
}

#[test]
fn fields_that_do_not_belong_to_the_action_are_refused() {
    let with = |action, change: fn(&mut RuleSpec)| {
        let mut spec = RuleSpec { action, target_label: "t".into(), ..RuleSpec::default() };
        change(&mut spec);
        Rule::new(spec, NameScheme::Utf8).is_ok()
    };
    assert!(!with(Action::HashMod, |_| {}));
    assert!(with(Action::HashMod, |spec| spec.modulus = 2));
    assert!(!with(Action::LabelDrop, |_| {}));
    assert!(with(Action::LabelDrop, |spec| spec.target_label.clear()));
    assert!(!with(Action::KeepEqual, |spec| spec.regex = Some("a".into())));
    assert!(!with(Action::Lowercase, |spec| spec.replacement = Some("a".into())));
    assert!(!with(Action::Replace, |spec| spec.regex = Some("(".into())));
}
