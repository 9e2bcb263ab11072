-- Routes prostate MRI to the node: every MR series once it is complete, and what radiologists store
-- beside it (segmentations, reports, key objects). What the node itself sent is not sent back.

local NODE = 'prostate-node'
local NODE_AE_TITLE = 'PROSTATE_AI'
local ROUTED = { MR = true, SEG = true, SR = true, KO = true }
local WORDS = { 'prost', 'pi-rads', 'pirads' }

local function says_prostate(text)
   local lower = string.lower(text or '')
   for _, word in ipairs(WORDS) do
      if string.find(lower, word, 1, true) then
         return true
      end
   end
   return false
end

-- The study is one of the prostate if it, or any of its series, says so.
local function is_prostate(study)
   local tags = study['MainDicomTags']
   if says_prostate(tags['StudyDescription']) or
      says_prostate(tags['RequestedProcedureDescription']) then
      return true
   end
   for _, id in ipairs(study['Series']) do
      local series = ParseJson(RestApiGet('/series/' .. id))['MainDicomTags']
      if says_prostate(series['BodyPartExamined']) or
         says_prostate(series['SeriesDescription']) or
         says_prostate(series['ProtocolName']) then
         return true
      end
   end
   return false
end

function OnStableSeries(seriesId, tags, metadata)
   if not ROUTED[tags['Modality']] or metadata['RemoteAET'] == NODE_AE_TITLE then
      return
   end
   local study = ParseJson(RestApiGet('/series/' .. seriesId .. '/study'))
   if is_prostate(study) then
      -- a job of its own: Orthanc goes on, and lists it with its result under /jobs
      local order = { Resources = { seriesId }, Asynchronous = true }
      RestApiPost('/modalities/' .. NODE .. '/store', DumpJson(order, true))
   end
end
