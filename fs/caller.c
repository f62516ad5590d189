#include "fs/caller.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fs/fs_internal.h"

static void set_capability(uint32_t words[2], unsigned capability, bool on)
{
	uint32_t bit = CAP_TO_MASK(capability);

	if (on)
		words[CAP_TO_INDEX(capability)] |= bit;
	else
		words[CAP_TO_INDEX(capability)] &= ~bit;
}

static int apply(const struct caller_rights *rights,
		 const uint32_t effective[2])
{
	struct __user_cap_header_struct header = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct data[2];
	int i;

	for (i = 0; i < 2; i++) {
		data[i].effective = effective[i];
		data[i].permitted = rights->permitted[i];
		data[i].inheritable = rights->inheritable[i];
	}
	return syscall(SYS_capset, &header, data) < 0 ? -errno : 0;
}

int caller_rights_read(struct caller_rights *ret, struct hib_error *error)
{
	struct __user_cap_header_struct header = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct data[2];
	int i;

	memset(data, 0, sizeof(data));
	if (syscall(SYS_capget, &header, data) < 0)
		return hib_fail_errno(error, errno, "read capabilities");
	memset(ret, 0, sizeof(*ret));
	ret->uid = geteuid();
	ret->gid = getegid();
	ret->privileged = ret->uid == 0;
	for (i = 0; i < 2; i++) {
		ret->effective[i] = data[i].effective;
		ret->permitted[i] = data[i].permitted;
		ret->inheritable[i] = data[i].inheritable;
	}
	set_capability(ret->effective, CAP_FSETID, false);
	set_capability(ret->effective, CAP_SYS_RESOURCE, false);
	return 0;
}

int worker_enter(struct fs *fs, struct hib_error *error)
{
	int r;

	/* The umask belongs to what CLONE_FS shares among threads. */
	if (unshare(CLONE_FS) < 0)
		return hib_fail_errno(error, errno,
				      "give a thread its own umask");
	if (!fs->rights.privileged)
		return 0;
	if (prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP) < 0)
		return hib_fail_errno(error, errno,
				      "keep capabilities (CAP_SETPCAP)");
	r = apply(&fs->rights, fs->rights.effective);
	if (r < 0)
		return hib_fail_errno(error, -r, "drop capabilities");
	return 0;
}

void caller_raise_fsetid(struct fs *fs)
{
	uint32_t effective[2];

	if (!fs->rights.privileged)
		return;
	memcpy(effective, fs->rights.effective, sizeof(effective));
	set_capability(effective, CAP_FSETID, true);
	apply(&fs->rights, effective);
}

void caller_drop_fsetid(struct fs *fs)
{
	if (fs->rights.privileged)
		apply(&fs->rights, fs->rights.effective);
}

struct caller caller_become(fuse_req_t req, mode_t mode)
{
	const struct fuse_ctx *context = fuse_req_ctx(req);
	struct caller caller = { .fs = fuse_req_userdata(req) };
	const struct caller_rights *rights = &caller.fs->rights;

	umask(context->umask & 0777);
	if (!rights->privileged)
		return caller;
	if (context->uid != rights->uid || context->gid != rights->gid) {
		caller.changed_ids = true;
		setfsgid(context->gid);
		setfsuid(context->uid);
	}
	if (mode & S_ISGID) {
		caller.raised = true;
		caller_raise_fsetid(caller.fs);
	}
	return caller;
}

void caller_done(struct caller *caller)
{
	if (caller->changed_ids) {
		setfsuid(caller->fs->rights.uid);
		setfsgid(caller->fs->rights.gid);
	}
	if (caller->raised)
		caller_drop_fsetid(caller->fs);
}
