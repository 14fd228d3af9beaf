//! Any bytes as a certificate name somebody or nobody.

#![no_main]

use libfuzzer_sys::fuzz_target;
use metrics_api::access::certificate_user;

fuzz_target!(|bytes: &[u8]| {
    if let Some(user) = certificate_user(bytes) {
        assert!(!user.name.is_empty());
        assert!(user.name.len() + user.groups.iter().map(String::len).sum::<usize>() <= bytes.len());
    }
});
