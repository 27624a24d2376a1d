PRAGMA journal_mode = WAL;
PRAGMA application_id = 1447382835;
PRAGMA user_version = 1;
BEGIN TRANSACTION;
CREATE TABLE notes (name TEXT PRIMARY KEY, content TEXT NOT NULL);
INSERT INTO "notes" VALUES('pacing','{"version": 1}');
CREATE TABLE tasks (
          key INTEGER PRIMARY KEY,
          request_id TEXT UNIQUE,        -- NULL: submitted, and the answer was never seen
          phase TEXT NOT NULL,           -- in doubt, refused, or one of veo3_async.Phase
          status TEXT NOT NULL,          -- the service's own word
          since TEXT NOT NULL,           -- of this phase, as all times UTC
          model TEXT,                    -- NULL, like prompt, image and submitted_at,
          prompt TEXT,                   --   where the task was only watched
          image TEXT,
          submitted_at TEXT,
          finished_at TEXT,              -- NULL: unfinished
          delivered_at TEXT,             -- NULL: the program was not told of the end
          video_url TEXT,
          upsample_video_url TEXT,
          error TEXT,                    -- JSON: why there is no video
          task TEXT                      -- JSON: the last state that was seen
        );
INSERT INTO "tasks" VALUES(1,'veo3-pro:1','generating','generating','2025-06-15 15:07:40.000','veo3-pro','a lighthouse in a storm','https://example.com/x.jpg','2025-06-15 15:06:40.000',NULL,NULL,NULL,NULL,NULL,'{"id":"veo3-pro:1","status":"generating","running":null,"created_at":null,"status_update_time":null,"completed_at":null,"retry_count":null,"max_retries":null,"enhanced_prompt":null,"images":[],"req":null,"video_generation_id":null,"video_generation_status":null,"video_media_id":null,"video_url":null,"upsample_generation_id":null,"upsample_status":null,"upsample_video_url":null,"error_message":null,"video_generation_error":null,"needs_safe_enhancement":null,"error_sleep":null,"extra":{}}');
INSERT INTO "tasks" VALUES(2,NULL,'in doubt','','2025-06-15 15:06:43.000','veo3-fast','whose answer was lost',NULL,'2025-06-15 15:06:43.000',NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "tasks" VALUES(3,NULL,'refused','','2025-06-15 15:06:45.000','veo3','refused',NULL,'2025-06-15 15:06:44.000','2025-06-15 15:06:45.000','2025-06-15 15:06:45.000',NULL,NULL,'{"message":"connection refused"}',NULL);
INSERT INTO "tasks" VALUES(4,'veo3-pro:watched','queued','','2025-06-15 15:06:46.000',NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "tasks" VALUES(5,'veo3-pro:failed','failed','failed','2025-06-15 15:07:40.000',NULL,NULL,NULL,NULL,'2025-06-15 15:07:40.000',NULL,NULL,NULL,'{"message":"gave up","type":"TaskFailed","http_status":200,"attempts":7,"elapsed":54.5}','{"id":"veo3-pro:failed","status":"failed","running":null,"created_at":null,"status_update_time":null,"completed_at":null,"retry_count":null,"max_retries":null,"enhanced_prompt":null,"images":[],"req":null,"video_generation_id":null,"video_generation_status":null,"video_media_id":null,"video_url":null,"upsample_generation_id":null,"upsample_status":null,"upsample_video_url":null,"error_message":null,"video_generation_error":null,"needs_safe_enhancement":null,"error_sleep":null,"extra":{}}');
INSERT INTO "tasks" VALUES(6,'veo3-pro:done','completed','completed','2025-06-15 15:07:40.000',NULL,NULL,NULL,NULL,'2025-06-15 15:07:40.000','2025-06-15 15:07:50.000','https://file.302.ai/storm.mp4',NULL,NULL,'{"id":"veo3-pro:done","status":"completed","running":null,"created_at":null,"status_update_time":null,"completed_at":null,"retry_count":null,"max_retries":null,"enhanced_prompt":null,"images":[],"req":null,"video_generation_id":null,"video_generation_status":null,"video_media_id":null,"video_url":"https://file.302.ai/storm.mp4","upsample_generation_id":null,"upsample_status":null,"upsample_video_url":null,"error_message":null,"video_generation_error":null,"needs_safe_enhancement":null,"error_sleep":null,"extra":{}}');
CREATE INDEX tasks_delivered_at ON tasks (delivered_at);
COMMIT;
