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
    // A software adapter counts as often as it is asked for, each time as a device of its own.
    // SAFETY: as above; the devices' workers do not look at the environment.
    unsafe { std::env::set_var("MXRS_ALLOW_SOFTWARE_GPU", "3") };
    let software = all_adapters().iter().filter(|a| a.kind == Kind::Software).count();
    assert_eq!(adapters().len(), all_adapters().len() + 2 * software);
    if software > 0 {
        let last = adapters().len() - 1;
        let twin = Device::get(last).unwrap();
        assert!(!twin.same(&Device::get(last - 1).unwrap()) && twin.same(&Device::get(last).unwrap()));
        let far = twin.alloc(16).unwrap();
        assert!(second.write(&far, 0, &[7; 16], "w").unwrap_err().message().contains("another device"));
        assert!(describe().contains("counted 3 times"));
    }
    shutdown();
    assert!(second.write(&buffer, 0, &[7; 16], "w").unwrap_err().message().contains("shut down"));
}
