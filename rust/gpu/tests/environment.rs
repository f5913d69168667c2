//! What the environment decides. One test, so that nothing else of the process looks at the environment meanwhile.

use mxrs_gpu::{Device, Kind, adapters, all_adapters, describe, shutdown};

#[test]
fn the_environment_decides() {
    if all_adapters().is_empty() {
        eprintln!("skipped: {}", describe());
        return;
    }
    // SAFETY: no other thread of this process runs yet that reads the environment.
    unsafe { std::env::remove_var("MXRS_ALLOW_SOFTWARE_GPU") };
    assert!(adapters().iter().all(|a| a.kind != Kind::Software));
    if adapters().is_empty() {
        let error = Device::get(0).unwrap_err();
        assert!(
            error.message().contains("there is no GPU") && error.message().contains("only with"),
            "{error}"
        );
    }
    // SAFETY: as above.
    unsafe {
        std::env::set_var("MXRS_ALLOW_SOFTWARE_GPU", "1");
        std::env::set_var("MXRS_GPU_LIMITS", "nonsense");
    }
    assert_eq!(adapters().len(), all_adapters().len());
    assert!(Device::get(0).unwrap_err().message().contains("allowed are webgpu and metal"));
    // SAFETY: as above.
    unsafe { std::env::set_var("MXRS_GPU_LIMITS", "webgpu") };
    let first = Device::get(0).unwrap();
    assert!(!first.features().immediates && first.limits().storage_buffers == 8);
    assert!(first.same(&Device::get(0).unwrap()));
    // A lost device is replaced.
    first.destroy();
    let second = Device::get(0).unwrap();
    assert!(!second.same(&first));
    let buffer = second.alloc(16).unwrap();
    second.write(&buffer, 0, &[7; 16], "w").unwrap();
    assert_eq!(second.read(&buffer, 4, 4, "r").unwrap().wait().unwrap(), [7; 4]);
    shutdown();
    assert!(second.write(&buffer, 0, &[7; 16], "w").unwrap_err().message().contains("shut down"));
}
