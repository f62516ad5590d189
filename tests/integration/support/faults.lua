-- Faults between a client and the S3 server, inside nginx (see faultproxy.py,
-- which says what the actions mean). One worker, so a plain table holds them.
local faults = {}
local rules = {}

local function error_body(code)
	return '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>' .. code ..
		'</Code><Message>a fault of the tests</Message></Error>'
end

-- /__faults: with arguments a new rule, ?clear=1 none, else the hits of each.
function faults.control()
	local rule = ngx.req.get_uri_args()
	if rule.clear then
		rules = {}
	elseif rule.action then
		for _, name in ipairs({ "skip", "count", "percent", "at", "ms",
					"status", "rate" }) do
			rule[name] = tonumber(rule[name])
		end
		rule.hits = 0
		rules[#rules + 1] = rule
		ngx.say(#rules)
	else
		for _, each in ipairs(rules) do
			ngx.say(each.hits)
		end
	end
end

local function matches(rule, method, uri)
	if rule.method and rule.method ~= method then
		return false
	end
	if rule.path and not ngx.re.find(uri, rule.path) then
		return false
	end
	if rule.percent and math.random(100) > rule.percent then
		return false
	end
	if rule.skip and rule.skip > 0 then
		rule.skip = rule.skip - 1
		return false
	end
	if rule.count then
		if rule.count <= 0 then
			return false
		end
		rule.count = rule.count - 1
	end
	rule.hits = rule.hits + 1
	return true
end

local function answer(rule)
	ngx.status = rule.status
	ngx.header.content_type = "application/xml"
	ngx.print(error_body(rule.code))
	return ngx.exit(ngx.HTTP_OK)
end

local actions = {
	error = answer,
	close = function()
		return ngx.exit(444)
	end,
	delay = function(rule)
		ngx.sleep(rule.ms / 1000)
	end,
	hang = function()
		ngx.sleep(86400)
	end,
	rate = function(rule)
		ngx.var.limit_rate = rule.rate
		return ngx.exec("@slow")
	end,
}

-- Before the request is passed on.
function faults.access()
	local method, uri = ngx.req.get_method(), ngx.var.request_uri
	for _, rule in ipairs(rules) do
		if matches(rule, method, uri) then
			local action = actions[rule.action]
			if action then
				action(rule)
			else
				ngx.ctx.rule = rule
			end
		end
	end
end

function faults.header()
	local rule = ngx.ctx.rule
	if not rule then
		return
	end
	if rule.action == "late-error" then
		ngx.status = rule.status
		ngx.header.content_length = nil
		ngx.header.etag = nil
	elseif rule.action == "etag" then
		ngx.header.etag = '"00000000000000000000000000000000"'
	end
end

-- Changes the answer's body on its way: `at` is the offset of a byte in it.
function faults.body()
	local context = ngx.ctx
	local rule = context.rule
	if not rule then
		return
	end
	if rule.action == "late-error" then
		ngx.arg[1] = context.done and "" or error_body(rule.code)
		context.done = true
		return
	end
	local data = ngx.arg[1] or ""
	local seen = context.seen or 0
	context.seen = seen + #data
	if context.cut then
		return ngx.ERROR
	end
	local offset = rule.at and rule.at - seen or -1
	if offset < 0 or offset >= #data then
		return
	end
	if rule.action == "flip" then
		local byte = bit.bxor(data:byte(offset + 1), 1)
		ngx.arg[1] = data:sub(1, offset) .. string.char(byte) ..
			data:sub(offset + 2)
	elseif rule.action == "truncate" then
		if offset == 0 then
			return ngx.ERROR
		end
		context.cut = true
		ngx.arg[1] = data:sub(1, offset)
	end
end

return faults
