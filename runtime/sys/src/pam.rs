//! The account stage of PAM, pam_acct_mgmt(3). The library is found when it is asked for: no other program of Berth has it in memory.

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    io, mem, ptr,
};

/// `_pam_types.h` of Linux-PAM.
pub const SUCCESS: i32 = 0;
pub const USER_UNKNOWN: i32 = 10;
pub const PERM_DENIED: i32 = 6;
pub const AUTH_ERR: i32 = 7;
pub const NEW_AUTHTOK_REQD: i32 = 12;
pub const ACCT_EXPIRED: i32 = 13;
pub const AUTHTOK_EXPIRED: i32 = 27;
const SILENT: c_int = 0x8000;
const CONV_ERR: c_int = 19;
/// pam_conv(3): messages at once.
const MOST_MESSAGES: c_int = 32;

#[repr(C)]
struct Conversation {
    talk: extern "C" fn(c_int, *const c_void, *mut *mut c_void, *mut c_void) -> c_int,
    data: *mut c_void,
}

/// `struct pam_response`.
#[repr(C)]
struct Response {
    text: *mut c_char,
    code: c_int,
}

type Start = unsafe extern "C" fn(*const c_char, *const c_char, *const Conversation, *const c_char, *mut *mut c_void) -> c_int;
type Manage = unsafe extern "C" fn(*mut c_void, c_int) -> c_int;
type Explain = unsafe extern "C" fn(*mut c_void, c_int) -> *const c_char;

/// Nobody is there to be asked: every message gets an empty answer.
extern "C" fn say_nothing(count: c_int, _: *const c_void, answers: *mut *mut c_void, _: *mut c_void) -> c_int {
    if !(1..=MOST_MESSAGES).contains(&count) || answers.is_null() {
        return CONV_ERR;
    }
    // SAFETY: calloc may be called with any numbers; the module frees what it gets, as pam_conv(3) says, and `answers` is its own pointer.
    let made = unsafe { libc::calloc(count as usize, size_of::<Response>()) };
    if made.is_null() {
        return CONV_ERR;
    }
    // SAFETY: not null (checked), and the module's to be written to, pam_conv(3).
    unsafe { *answers = made };
    SUCCESS
}

/// What the account stage of `service` in `directory` (`/etc/pam.d`) says of `user`: PAM's code and its words for it.
///
/// Modules are arbitrary code of the host: call it in a process that may hang, crash or change as they like.
///
/// Errors: the library is not there, or knows no directories (before Linux-PAM 1.4).
pub fn account(service: &CStr, directory: &CStr, user: &CStr) -> io::Result<(i32, String)> {
    // SAFETY: a static name; loading runs the library's constructors, which Linux-PAM has none of that touch us.
    let library = unsafe { libc::dlopen(c"libpam.so.0".as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if library.is_null() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "there is no libpam.so.0"));
    }
    let find = |name: &'static CStr| -> io::Result<*mut c_void> {
        // SAFETY: `library` is open, and stays so until the process ends; the name is static.
        let found = unsafe { libc::dlsym(library, name.as_ptr()) };
        match found.is_null() {
            true => Err(io::Error::new(io::ErrorKind::Unsupported, format!("libpam.so.0 has no {}", name.to_string_lossy()))),
            false => Ok(found),
        }
    };
    let (start, manage) = (find(c"pam_start_confdir")?, find(c"pam_acct_mgmt")?);
    let (explain, end) = (find(c"pam_strerror")?, find(c"pam_end")?);
    // SAFETY: it is the function of that name, with the type that Linux-PAM's headers give it.
    let start = unsafe { mem::transmute::<*mut c_void, Start>(start) };
    // SAFETY: the same.
    let manage = unsafe { mem::transmute::<*mut c_void, Manage>(manage) };
    // SAFETY: the same.
    let explain = unsafe { mem::transmute::<*mut c_void, Explain>(explain) };
    // SAFETY: the same.
    let end = unsafe { mem::transmute::<*mut c_void, Manage>(end) };
    let conversation = Conversation { talk: say_nothing, data: ptr::null_mut() };
    let mut handle = ptr::null_mut();
    // SAFETY: the strings end in NUL, and live with the conversation until pam_end below; `handle` is ours to be written to.
    let started = unsafe { start(service.as_ptr(), user.as_ptr(), &conversation, directory.as_ptr(), &mut handle) };
    if started != SUCCESS || handle.is_null() {
        return Err(io::Error::other(format!("pam_start failed ({started})")));
    }
    // SAFETY: `handle` is from pam_start.
    let code = unsafe { manage(handle, SILENT) };
    // SAFETY: `handle` is from pam_start; what comes back is a static string of the library, or null.
    let words = unsafe { explain(handle, code) };
    let words = match words.is_null() {
        true => format!("code {code}"),
        // SAFETY: not null (checked), ends in NUL, and is copied before anything else is called.
        false => unsafe { CStr::from_ptr(words) }.to_string_lossy().into_owned(),
    };
    // SAFETY: `handle` is from pam_start and not used again.
    unsafe { end(handle, code) };
    Ok((code, words))
}
