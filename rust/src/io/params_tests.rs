use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hex")).collect()
}

/// What `nd.save(f, {"w": nd.array([1.])})` of MXNet 1.9.1 writes.
fn dict() -> Vec<u8> {
    let head = "120100000000000000000000000000000100000000000000c9fa93f90000000001000000";
    let body = "01000000000000000100000000000000000000000000803f";
    bytes(&format!("{head}{body}0100000000000000010000000000000077"))
}

#[test]
fn a_file_of_mxnet_is_read_and_written_alike() {
    let file = dict();
    let (entries, names) = read(&file).unwrap();
    assert_eq!(names, ["w"]);
    let e = &entries[0];
    assert_eq!(
        (e.dtype, &e.shape[..], e.ctx, e.data),
        (DType::F32, &[1i64][..], (1, 0), &1f32.to_le_bytes()[..])
    );
    let mut again = Vec::new();
    write(&entries, &names, &mut again).unwrap();
    assert_eq!(again, file);
}

#[test]
fn every_type_and_shape_survives() {
    let data: Vec<u8> = (0..48).collect();
    let entry = |dtype: DType, shape: &[i64]| {
        let n = shape.iter().product::<i64>() as usize * dtype.size();
        Entry { dtype, shape: shape.to_vec(), ctx: (1, 0), data: &data[..n], is_none: false }
    };
    for shape in [&[2, 3][..], &[], &[0, 3], &[1, 1, 1, 1, 6]] {
        let entries: Vec<Entry> = DType::ALL.iter().map(|d| entry(*d, shape)).collect();
        let mut file = Vec::new();
        write(&entries, &[], &mut file).unwrap();
        let (back, names) = read(&file).unwrap();
        assert!(back == entries && names.is_empty());
    }
    let none = Entry { dtype: DType::F32, shape: vec![], ctx: (1, 0), data: &[], is_none: true };
    for list in [vec![none.clone()], vec![entry(DType::F32, &[]), none]] {
        let mut file = Vec::new();
        write(&list, &[], &mut file).unwrap();
        assert_eq!(read(&file).unwrap().0, list);
    }
}

#[test]
fn older_versions_are_read() {
    let list = "12010000000000000000000000000000".to_owned() + "0100000000000000";
    let tail = "010000000000000000000000".to_owned() + "0000803f00000040" + "0000000000000000";
    let v1 = format!("{list}c8fa93f9010000000200000000000000{tail}");
    let oldest = format!("{list}0100000002000000{tail}");
    for hex in [v1, oldest] {
        let file = bytes(&hex);
        let (entries, _) = read(&file).unwrap();
        assert_eq!((entries[0].shape.clone(), entries[0].data.len()), (vec![2], 8));
    }
}

#[test]
fn damage_is_named_with_its_offset() {
    let file = dict();
    for n in 0..file.len() {
        let e = read(&file[..n]).unwrap_err();
        assert!(e.message().contains("at byte"), "{n}: {e}");
    }
    // Every single bit flip is read or refused; none may panic.
    let mut refused = 0;
    for bit in 0..file.len() * 8 {
        let mut bad = file.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        refused += read(&bad).is_err() as usize;
    }
    assert!(refused > file.len());
    let with = |offset: usize, patch: &[u8]| {
        let mut bad = file.clone();
        bad[offset..offset + patch.len()].copy_from_slice(patch);
        read(&bad).map(|_| ()).unwrap_err().message().to_owned()
    };
    assert!(with(16, &(1u64 << 60).to_le_bytes()).contains("at byte 16: the number of arrays"));
    assert!(with(28, &1i32.to_le_bytes()).contains("at byte 28: a row_sparse array"));
    assert!(with(28, &99i32.to_le_bytes()).contains("storage type 99"));
    assert!(with(32, &i32::MAX.to_le_bytes()).contains("2147483647 dimensions"));
    assert!(with(36, &(1u64 << 40).to_le_bytes()).contains("bytes, and"));
    assert!(with(36, &(1u64 << 62).to_le_bytes()).contains("more elements than memory"));
    assert!(with(52, &99i32.to_le_bytes()).contains("type flag 99"));
    assert!(with(68, &(1u64 << 60).to_le_bytes()).contains("the length of a name"));
}

#[test]
fn wrong_lists_are_not_written() {
    let e = Entry { dtype: DType::F32, shape: vec![2], ctx: (1, 0), data: &[0; 4], is_none: false };
    assert!(write(&[e], &[], &mut Vec::new()).is_err());
    assert!(write(&[], &["a".to_owned()], &mut Vec::new()).is_err());
}

#[test]
fn saving_is_all_or_nothing() {
    let folder = std::env::temp_dir().join(format!("mxrs-params-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join("a.params");
    save_atomic(&path, |w| w.write_all(b"old").map_err(|e| Error::op(e.to_string()))).unwrap();
    let failed = save_atomic(&path, |w| {
        w.write_all(b"half").map_err(|e| Error::op(e.to_string()))?;
        Err(Error::op("stop"))
    });
    assert_eq!(failed.unwrap_err().message(), "stop");
    assert_eq!(fs::read(&path).unwrap(), b"old");
    save_atomic(&path, |w| w.write_all(b"new").map_err(|e| Error::op(e.to_string()))).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "no temporary file is left");
    let e = save_atomic(&folder.join("no/such/folder.params"), |_| Ok(())).unwrap_err();
    assert!(e.message().contains("folder.params"));
    fs::remove_dir_all(&folder).unwrap();
}
